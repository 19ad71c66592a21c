from datetime import timedelta

import pytest
from sqlalchemy import event, insert

from coinwatch import status
from coinwatch.health import issues
from coinwatch.status import AlertStatus, CoinStatus, IssueStatus, Status
from coinwatch.warehouse import schema

HOUR = timedelta(hours=1)

STATISTICS = {
    "price": 101.5,
    "points_24h": 25,
    "rolling_mean_24h": 100.0,
    "rolling_std_24h": 0.75,
    "zscore_24h": 2.0,
    "change_1h_pct": -1.5,
    "change_24h_pct": None,
    "sigma_1h_pct": 0.5,
}


@pytest.fixture
def world(make_world):
    """Two coins and a bucket."""
    return make_world(coins=("bitcoin", "ethereum"), s3_bucket="bucket", s3_prefix="in_it")


@pytest.fixture
def stored(world, alert_row, noon):
    """Bitcoin with prices, statistics and alerts; nothing of Ethereum; an issue; files and objects."""
    keys = ["in_it/raw/1", "in_it/raw/2", "inXit/raw/1", "raw/1"]
    objects = [{"bucket": "bucket", "key": key, "sha256": "", "uploaded_at": noon} for key in keys]
    work = {"step": "statistics", "currency": "usd", "since": noon, "context_since": noon - 25 * HOUR}
    bitcoin = {"coin": "bitcoin", "currency": "usd", "ts": noon}
    price = bitcoin | {"price": 101.5, "source": "live", "snapshot": "s"}
    rows = {
        schema.prices: [price, price | {"ts": noon - 90 * 24 * HOUR, "source": "history"}],
        schema.price_statistics: [bitcoin | {"sigma_samples": 60, "sigma_variance": 1.0} | STATISTICS],
        schema.alerts: [
            alert_row("old", raised_at=noon - 25 * HOUR, delivery="delivered", delivery_error=None),
            alert_row("b", delivery_error="HTTP 500"),
            alert_row("a", delivery="not_configured", delivery_error=None),
        ],
        schema.s3_objects: [*objects, {**objects[0], "bucket": "other"}],
        schema.pending_work: [{"coin": coin} | work for coin in ("ethereum", "bitcoin")],
        schema.pending_uploads: [{"layer": "raw", "hour": noon}],
        schema.log_positions: [
            {"log": log, "position": position, "tail_length": 0, "tail_sha256": ""}
            for log, position in (("raw:bitcoin", 10), ("manifest:in_it/bucket", 4))
        ],
    }
    with world.warehouse().begin() as connection:
        for table, values in rows.items():
            connection.execute(insert(table), values)
        issues.report(connection, "late", title="t", detail="d", action="a", at=noon)
    world.settings.raw_path("bitcoin").parent.mkdir(exist_ok=True, parents=True)
    world.settings.raw_path("bitcoin").write_bytes(b"x" * 15)
    world.settings.archive_path.mkdir()
    (world.settings.archive_path / "manifest.jsonl").write_bytes(b"1\n2\n3\n")
    return world


def test_the_status_is_what_the_warehouse_and_the_files_have(stored, noon):
    found = status.read(stored.app(), noon)
    bitcoin = CoinStatus(
        coin="bitcoin",
        currency="usd",
        rows=2,
        first=noon - 90 * 24 * HOUR,
        last=noon,
        source="live",
        **STATISTICS,
    )
    pending = AlertStatus(severity="warning", message="BTC moved, b", delivery="pending", delivery_error="HTTP 500")
    waiting = AlertStatus(severity="warning", message="BTC moved, a", delivery="not_configured", delivery_error=None)
    assert found.budget.used == 0
    assert found == Status(
        at=noon,
        as_of=noon,
        simulated=True,
        coins=[bitcoin, CoinStatus(coin="ethereum", currency="usd")],
        alerts=[waiting, pending],
        objects={"raw": 2, "processed": 0, "archive": 4},
        left=[
            f"5 bytes of {stored.settings.raw_path('bitcoin')} are not in the warehouse",
            "statistics: work is left for bitcoin, ethereum, from 2026-11-22T12:00:00Z",
            "1 partitions and 2 bytes of the archive's manifest are not in S3",
        ],
        issues=[IssueStatus(key="late", title="t", detail="d", action="a", link=None, opened_at=noon)],
        budget=found.budget,
    )
    assert found.without_price == ["ethereum"]
    assert Status.model_validate_json(found.model_dump_json()) == found
    with stored.warehouse().begin() as connection:
        assert status.undelivered(connection) == (1, noon, "HTTP 500", 1)


def test_the_objects_are_those_that_s3_has(make_world):
    world = make_world(s3_bucket="prices", s3_prefix="in_it")
    world.run()
    counts = status.read(world.app()).objects
    assert counts == {layer: len(world.objects(f"{layer}/")) for layer in ("raw", "processed", "archive")}
    assert 0 < counts["archive"] < counts["raw"]


def test_a_run_whose_price_is_not_stored_has_none_and_without_a_run_it_is_the_newest(stored, noon, monkeypatch):
    assert status.read(stored.app(), noon + HOUR).without_price == ["bitcoin", "ethereum"]
    monkeypatch.setenv("AIRFLOW_CONN_COINGECKO_DEFAULT", '{"conn_type": "http", "extra": {"plan": "gold"}}')
    app = stored.app()
    del app.__dict__["client"]
    found = status.read(app)
    assert found.coins == status.read(stored.app(), noon).coins
    assert found.budget is None, "the connection is wrong"


def test_an_empty_warehouse_without_a_bucket_has_nothing(make_world, noon):
    world = make_world("empty", s3_bucket="")
    found = status.read(world.app())
    assert found.coins == [CoinStatus(coin="bitcoin", currency="usd")]
    assert (found.left, found.alerts, found.issues, found.at) == ([], [], [], noon)
    with world.warehouse().begin() as connection:
        assert status.undelivered(connection) == (0, None, None, 0)


def test_the_number_of_statements_does_not_depend_on_the_number_of_coins_and_the_newest_prices_are_in_the_index(world):
    def plans(coins):
        app = world.app(settings=world.settings.model_copy(update={"coins": coins}))
        found = []

        def explain(_connection, cursor, statement, parameters, *_):
            plan = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
            found.append([row[3] for row in plan if "prices" in row[3]])

        event.listen(app.warehouse, "before_cursor_execute", explain)
        status.read(app)
        with app.warehouse.begin() as connection:
            assert status.newest_prices(connection, app.settings) == {}
        return found

    found = plans(("bitcoin",))
    assert found == plans(tuple(f"coin-{number}" for number in range(300)))
    assert found[-1] == ["SEARCH prices USING PRIMARY KEY (coin=? AND currency=?)"]


def test_names_are_cut_after_the_fifth():
    assert status.named(list("abcde")) == "a, b, c, d, e"
    assert status.named(list("abcdefg")) == "a, b, c, d, e and 2 more"
