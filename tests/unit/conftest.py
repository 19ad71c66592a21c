"""Prices to analyse."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from coinwatch.rules import load_rules
from coinwatch.settings import PROJECT_DIR

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def rules():
    """The rules that the project ships."""
    return load_rules(PROJECT_DIR / "include" / "coinwatch.yaml")


@pytest.fixture(scope="session")
def frame():
    """Make a frame of prices: (coin → [(hours after START, price), …])."""

    def make(series):
        rows = [
            (coin, START + timedelta(hours=hours), price) for coin in sorted(series) for hours, price in series[coin]
        ]
        made = pd.DataFrame(rows, columns=["coin", "ts", "price"]).astype({"price": "float64"})
        made["ts"] = pd.to_datetime(made["ts"], utc=True)
        return made.assign(sigma_variance=math.nan, sigma_samples=math.nan)

    return make


@pytest.fixture(scope="session")
def btc_2024(recordings: Path):
    """Hourly closing prices of Bitcoin in 2024, without a gap."""
    recorded = pd.read_csv(recordings / "btc_hourly_coinbase_2024.csv")
    ts = pd.to_datetime(recorded["timestamp_utc"], utc=True)
    return pd.DataFrame({"coin": "bitcoin", "ts": ts, "price": recorded["close"].astype("float64")}).assign(
        sigma_variance=math.nan, sigma_samples=math.nan
    )
