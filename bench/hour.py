"""Measure hours of the whole pipeline without network and Airflow; run in a process of its own for its peak memory."""

import json
import resource
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from stored import HOUR, NOW, StoredApp, bench_settings

from coinwatch.alerts.incidents import detect_anomalies
from coinwatch.app import App
from coinwatch.archive.snapshots import Answer
from coinwatch.ingest.gaps import find_gaps
from coinwatch.ingest.poll import append_raw_log, fetch_prices
from coinwatch.settings import Settings
from coinwatch.slack.webhook import Slack
from coinwatch.statistics.compute import compute_rolling_statistics
from coinwatch.statistics.processed_csv import export_processed_csv
from coinwatch.times import format_time
from coinwatch.warehouse.load import load_raw_prices


class Client:
    """CoinGecko without a network: one price for every coin, which changes by the hour."""

    plan = "pro"

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self.meter = SimpleNamespace(interval=0.1, per_minute=500, monthly_limit=None)

    def simple_price(self, coins: list[str], currency: str) -> Answer:
        """Answer as ``/simple/price`` does."""
        now = self._clock()
        price = 100 + now.hour / 10
        quote = {
            currency: price,
            f"{currency}_market_cap": price * 1e6,
            f"{currency}_24h_vol": price * 1e4,
            f"{currency}_24h_change": 0.5,
            "last_updated_at": int(now.timestamp()) - 60,
        }
        body = json.dumps(dict.fromkeys(coins, quote)).encode()
        return Answer("GET /simple/price", 200, {}, body, format_time(now))


def new_app(settings: Settings, clock: Callable[[], datetime]) -> StoredApp:
    """Return what one task would have: everything opened anew."""
    app = StoredApp(settings, clock)
    app.__dict__ |= {"client": Client(clock), "slack": Slack(None, None), "s3": None}
    return app


def run_hour(settings: Settings, as_of: datetime) -> dict[str, float]:
    """Run one hour; return the seconds of each step."""
    names: list[str] = []
    steps: list[tuple[str, Callable[[App], Any]]] = [
        ("fetch_prices", lambda app: names.extend(fetch_prices(app, as_of))),
        ("append_raw_log", lambda app: append_raw_log(app, names)),
        ("find_gaps", lambda app: find_gaps(app, as_of)),
        ("load_raw_prices", load_raw_prices),
        ("compute_rolling_statistics", compute_rolling_statistics),
        ("detect_anomalies", lambda app: detect_anomalies(app, "bench")),
        ("export_processed_csv", export_processed_csv),
    ]
    seconds = {}
    for name, step in steps:
        started = time.perf_counter()
        app = new_app(settings, lambda: as_of)
        step(app)
        app.warehouse.dispose()
        seconds[name] = time.perf_counter() - started
    return seconds


def main(folder: str, coins: str, hours: str) -> None:
    """Print the seconds of each step of some hours, and the peak memory in MB."""
    settings = bench_settings(Path(folder), int(coins))
    measured = [run_hour(settings, NOW + HOUR * number) for number in range(int(hours))]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"hours": measured, "peak_mb": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
