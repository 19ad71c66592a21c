"""A warehouse with prices of live polls and history, and the app that the steps work with."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import Engine, select

from coinwatch.record import RawPrice
from coinwatch.rules import load_rules
from coinwatch.settings import PROJECT_DIR, load_settings
from coinwatch.times import format_time
from coinwatch.warehouse.load import store_raw_prices

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)


class Pipeline:
    """The steps' app, and what they read and leave."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.app = SimpleNamespace(
            warehouse=engine,
            rules=load_rules(PROJECT_DIR / "include" / "coinwatch.yaml"),
            settings=load_settings(data_dir=folder),
            clock=lambda: TEN,
        )

    def load(self, *hours, coin="bitcoin", currency="usd", source="live", price=None) -> None:
        """Load prices by hours after ten o'clock; without a price they go up and down a little."""
        rows = []
        for hour in hours:
            text = repr(100 + math.sin(hour * 7)) if price is None else price
            time = format_time(TEN + timedelta(hours=hour))
            rows.append(RawPrice(time, coin, currency, text, "", "", "", "", time, source, "s"))
        with self.app.warehouse.begin() as connection:
            store_raw_prices(connection, rows, self.app.rules, TEN)

    def rows(self, table, *columns, **where):
        """Some columns of a table, by its key."""
        names = columns or table.c.keys()
        query = select(*(table.c[name] for name in names)).order_by(*table.primary_key)
        with self.app.warehouse.begin() as connection:
            return connection.execute(query.filter_by(**where)).all()


@pytest.fixture
def pipeline(warehouse, tmp_path) -> Pipeline:
    """A pipeline on SQLite."""
    return Pipeline(warehouse, tmp_path)
