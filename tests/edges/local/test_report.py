import json
from datetime import timedelta

import pytest

from coinwatch.local.report import AlertReport, CoinReport, Report, format_report, main, read_report
from coinwatch.settings import load_settings
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import open_warehouse


@pytest.fixture
def settings(tmp_path):
    """Two coins and a bucket."""
    return load_settings(data_dir=tmp_path, coins=("bitcoin", "ethereum"), s3_bucket="bucket", s3_prefix="in_it")


def price(coin, ts, source="live"):
    return {"coin": coin, "currency": "usd", "ts": ts, "price": 101.5, "source": source, "snapshot": "s"}


def statistic(coin, ts):
    return {
        "coin": coin,
        "currency": "usd",
        "ts": ts,
        "price": 101.5,
        "points_24h": 25,
        "rolling_mean_24h": 100.0,
        "rolling_std_24h": 0.75,
        "zscore_24h": 2.0,
        "change_1h_pct": -1.5,
        "change_24h_pct": None,
        "sigma_1h_pct": 0.5,
        "sigma_samples": 60,
        "sigma_variance": 0.000025,
    }


def alert(ident, raised_at, delivery):
    return {
        "id": ident,
        "coin": "bitcoin",
        "currency": "usd",
        "rule": "move_1h",
        "severity": "warning",
        "state": "firing",
        "ts": raised_at,
        "value": -7.0,
        "threshold": 1.0,
        "message": f"message {ident}",
        "raised_at": raised_at,
        "delivery": delivery,
        "delivery_error": "Slack answered 500" if delivery == "pending" else None,
        "run_id": "r",
    }


@pytest.fixture
def stored(warehouse, noon):
    """Bitcoin with two prices and alerts, Ethereum with nothing, and objects of ours and of others."""
    with warehouse.begin() as connection:
        connection.execute(
            schema.prices.insert(), [price("bitcoin", noon), price("bitcoin", noon - timedelta(days=90), "history")]
        )
        connection.execute(schema.price_statistics.insert(), [statistic("bitcoin", noon)])
        raised = {"old": (noon - timedelta(hours=25), "delivered"), "a": (noon, "pending"), "b": (noon, "delivered")}
        connection.execute(schema.alerts.insert(), [alert(ident, *values) for ident, values in raised.items()])
        keys = ["in_it/raw/1", "in_it/raw/2", "in_it/archive/1", "inXit/raw/1", "raw/1"]
        objects = [{"bucket": "bucket", "key": key, "sha256": "", "uploaded_at": noon} for key in keys]
        connection.execute(schema.s3_objects.insert(), [*objects, {**objects[0], "bucket": "other"}])
    return warehouse


def test_a_report_has_what_the_warehouse_has(stored, settings, noon):
    assert read_report(stored, settings, noon) == Report(
        as_of=noon,
        coins=[
            CoinReport(
                coin="bitcoin",
                currency="usd",
                rows=2,
                first=noon - timedelta(days=90),
                last=noon,
                price=101.5,
                source="live",
                points_24h=25,
                rolling_mean_24h=100.0,
                rolling_std_24h=0.75,
                zscore_24h=2.0,
                change_1h_pct=-1.5,
                sigma_1h_pct=0.5,
            ),
            CoinReport(coin="ethereum", currency="usd", rows=0),
        ],
        alerts=[
            AlertReport(
                severity="warning", message="message a", delivery="pending", delivery_error="Slack answered 500"
            ),
            AlertReport(severity="warning", message="message b", delivery="delivered", delivery_error=None),
        ],
        objects={"raw": 2, "processed": 0, "archive": 1},
        left=[],
    )


def test_a_coin_without_a_row_as_of_the_run_is_named(stored, settings, noon):
    assert read_report(stored, settings, noon).without_price == ["ethereum"]
    assert read_report(stored, settings, noon + timedelta(hours=1)).without_price == ["bitcoin", "ethereum"]


def test_what_is_left_to_do_is_told(warehouse, settings, noon):
    settings.raw_path("bitcoin").write_bytes(b"0123456789")
    settings.raw_path("ethereum").write_bytes(b"0123456789")
    position = {"log": "raw:ethereum", "position": 10, "tail_length": 0, "tail_sha256": ""}
    work = {"step": "detection", "coin": "bitcoin", "currency": "usd", "since": noon}
    with warehouse.begin() as connection:
        connection.execute(schema.log_positions.insert(), [position])
        connection.execute(schema.pending_work.insert(), [work])
        connection.execute(schema.pending_uploads.insert(), [{"layer": "raw", "hour": noon}])
    waiting = [
        f"10 bytes of {settings.raw_path('bitcoin')} are not in the warehouse",
        "the step detection has work to do for bitcoin from 2026-11-22T12:00:00Z on",
    ]
    uploads = ["1 S3 partitions are not uploaded"]
    assert read_report(warehouse, settings, noon).left == waiting + uploads
    # Without a bucket nothing is uploaded, and nothing waits for it.
    assert read_report(warehouse, settings.model_copy(update={"s3_bucket": ""}), noon).left == waiting


def test_a_report_reads_well(stored, settings, noon, tmp_path):
    assert format_report(read_report(stored, settings, noon), settings).splitlines() == [
        "bitcoin   2 rows from 2026-08-24T12:00:00Z to 2026-11-22T12:00:00Z (90 days)",
        "          price 101.50 USD (live)",
        "          24 hours: 25 rows, mean 100.00, standard deviation 0.75, z-score +2.00",
        "          change in 1 hour -1.50 %, in 24 hours unknown; a usual hour moves 0.50 %",
        "ethereum  no rows",
        "          no price as of this run",
        "Alerts    2 in the last 24 hours",
        "          warning, not delivered yet (Slack answered 500): message a",
        "          warning, delivered to Slack: message b",
        "S3        s3://bucket has 2 raw, 0 processed, 1 archive objects",
        f"Files     {tmp_path}/bitcoin_raw.csv",
        f"          {tmp_path}/bitcoin_processed.csv",
        f"          {tmp_path}/ethereum_raw.csv",
        f"          {tmp_path}/ethereum_processed.csv",
        f"          {tmp_path}/archive",
    ]


def test_the_command_writes_the_report_as_json(monkeypatch, tmp_path, noon):
    monkeypatch.setenv("COINWATCH_DATA_DIR", str(tmp_path))
    open_warehouse(f"sqlite:///{tmp_path / 'warehouse.db'}").dispose()
    assert main(["--as-of", "2026-11-22T12:00:00Z", "--output", str(tmp_path / "report.json")]) == 0
    content = json.loads((tmp_path / "report.json").read_text())
    assert Report.model_validate(content) == Report(
        as_of=noon,
        coins=[CoinReport(coin="bitcoin", currency="usd", rows=0)],
        alerts=[],
        objects={"raw": 0, "processed": 0, "archive": 0},
        left=[],
    )
