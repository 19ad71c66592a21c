"""Contract, section 4: Dags, their schedules and tasks, and assets."""

import pytest
from airflow.sdk import Asset

from coinwatch.assets import PROCESSED_PRICES, RAW_PRICES, layer_uri
from coinwatch.settings import load_settings

STORY = {
    "ingest_prices": [("fetch_prices", "append_raw_log")],
    "heal_history": [("plan_history", "fetch_history"), ("fetch_history", "append_history")],
    "process_prices": [
        ("load_raw_prices", "compute_rolling_statistics"),
        ("compute_rolling_statistics", "detect_anomalies"),
        ("detect_anomalies", "send_slack_alerts"),
        ("compute_rolling_statistics", "export_processed_csv"),
        ("export_processed_csv", "upload_to_s3"),
    ],
}


@pytest.mark.parametrize("dag_id", STORY)
def test_the_tasks_that_carry_the_story_come_in_this_order(dag_bag, dag_id):
    dag = dag_bag.dags[dag_id]
    for before, after in STORY[dag_id]:
        assert before in dag.get_task(after).upstream_task_ids
    assert "find_gaps" in dag_bag.dags["ingest_prices"].task_ids


def test_the_clock_starts_two_dags_and_the_asset_raw_prices_the_third(dag_bag, consumed):
    schedules = {dag_id: dag.schedule for dag_id, dag in dag_bag.dags.items() if isinstance(dag.schedule, str)}
    assert schedules == {"ingest_prices": "0 * * * *", "watch_feed": "5-59/15 * * * *"}
    assert consumed["process_prices"] == ["raw_prices"]
    assert not any(dag.catchup for dag in dag_bag.dags.values())


def test_there_is_one_asset_for_each_layer_for_one_coin_or_several(tmp_path):
    assert (RAW_PRICES.name, PROCESSED_PRICES.name) == ("raw_prices", "processed_prices")
    one, two = (load_settings(coins=coins, data_dir=tmp_path) for coins in (("bitcoin",), ("bitcoin", "ethereum")))
    uris = [layer_uri(settings, layer) for settings in (one, two) for layer in ("raw", "processed")]
    names = ["bitcoin_raw.csv", "bitcoin_processed.csv", "*_raw.csv", "*_processed.csv"]
    assert uris == [f"file://{tmp_path}/{name}" for name in names]
    # Airflow stores them unchanged.
    assert [Asset(name="x", uri=uri).uri for uri in uris] == uris
