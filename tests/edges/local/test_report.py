from datetime import timedelta

from coinwatch.local.report import format_status
from coinwatch.settings import load_settings
from coinwatch.status import AlertStatus, CoinStatus, Status


def test_a_status_reads_well(noon, tmp_path):
    bitcoin = CoinStatus(
        coin="bitcoin",
        currency="usd",
        rows=2160,
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
    )
    coins = [bitcoin, *(CoinStatus(coin=name, currency="usd", rows=0) for name in "abcdef")]
    alerts = [
        AlertStatus(severity="warning", message="message a", delivery="pending", delivery_error="Slack answered 500"),
        AlertStatus(severity="critical", message="message b", delivery="delivered", delivery_error=None),
    ]
    status = Status.model_construct(
        coins=coins,
        alerts=alerts,
        objects={"raw": 2160, "processed": 0, "archive": 1},
        left=["5 bytes are unread"],
        issues=[],
        simulated=True,
    )
    settings = load_settings(data_dir=tmp_path, coins=("bitcoin",), s3_bucket="bucket")
    assert format_status(status, settings).splitlines() == [
        "bitcoin   2,160 rows from 2026-08-24T12:00:00Z to 2026-11-22T12:00:00Z (90 days)",
        "          price 101.50 USD (live)",
        "          24 hours: 25 rows, mean 100.00, standard deviation 0.75, z-score +2.00",
        "          change in 1 hour -1.50 %, in 24 hours unknown; typical move in an hour 0.50 %",
        *(f"{name}         no rows" for name in "abcd"),
        "          … and 2 more coins with 0 rows",
        "Alerts    2 in the last 24 hours",
        "          warning, not delivered yet (Slack answered 500): message a",
        "          critical, delivered to Slack: message b",
        "S3        s3://bucket has 2,160 raw, 0 processed, 1 archive objects",
        "Left      5 bytes are unread",
        f"Files     {tmp_path}/archive",
        f"          {tmp_path}/bitcoin_raw.csv",
        f"          {tmp_path}/bitcoin_processed.csv",
        "Prices    SIMULATED: nothing of this is real, and nothing left this machine",
    ]
