"""Prices to analyse."""

from datetime import UTC, datetime, timedelta

import pytest
from prices import as_prices

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

    def make(series, source="live"):
        rows = [
            (coin, START + timedelta(hours=number), price, source)
            for coin in sorted(series)
            for number, price in series[coin]
        ]
        return as_prices(rows)

    return make
