"""Data folders with any number of coins and hours stored, exactly as the pipeline stores them.

The pipeline itself stores one coin; the others are copies of its rows, lines and positions under other names.
"""

import hashlib
import json
import random
import resource
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, text

from coinwatch.app import App
from coinwatch.archive.raw_log import HEADER
from coinwatch.record import RawPrice, format_raw_prices
from coinwatch.settings import Settings, load_settings
from coinwatch.statistics.compute import compute_rolling_statistics
from coinwatch.statistics.processed_csv import export_processed_csv
from coinwatch.times import format_time
from coinwatch.warehouse import schema
from coinwatch.warehouse.load import load_raw_prices
from coinwatch.warehouse.log_reader import TAIL

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
"""The hour after the newest stored one."""

HOUR = timedelta(hours=1)

TEMPLATE = "coin-00000"


class StoredApp(App):
    """An app on a data folder, without Airflow's connections."""

    @property
    def warehouse_url(self) -> str:
        """The SQLite file in the data folder."""
        return f"sqlite:///{self.settings.data_dir / 'warehouse.db'}"


def bench_settings(folder: Path, coins: int, history_days: int = 90) -> Settings:
    """Return the settings of a data folder with some number of coins."""
    return load_settings(
        data_dir=folder, coins=tuple(f"coin-{number:05}" for number in range(coins)), history_days=history_days
    )


def make_rows(coin: str, hours: int, seed: int = 1) -> list[RawPrice]:
    """Return hourly rows of a random walk that end an hour before ``NOW``."""
    draw = random.Random(seed)
    price, rows = 100.0, []
    for number in range(hours, 0, -1):
        price *= 1 + draw.gauss(0, 0.005)
        timestamp = format_time(NOW - HOUR * number)
        rows.append(
            RawPrice(timestamp, coin, "usd", f"{price:.8f}", f"{price * 1e6:.2f}", f"{price * 1e4:.2f}", "", timestamp,
                     timestamp, "live", "20261122T110000Z")
        )  # fmt: skip
    return rows


def write_raw_log(settings: Settings, coin: str, hours: int, seed: int = 1) -> None:
    """Write a coin's raw log."""
    path = settings.raw_path(coin)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(HEADER + format_raw_prices(make_rows(coin, hours, seed), header=False).encode())


def process(app: App) -> None:
    """Store and compute what the raw logs have, and export it."""
    load_raw_prices(app)
    compute_rolling_statistics(app)
    with app.warehouse.begin() as connection:
        connection.execute(text("DELETE FROM pending_work WHERE step = 'detection'"))
    export_processed_csv(app)


def fill(settings: Settings, hours: int) -> None:
    """Store some hours of every coin of the settings."""
    alone = settings.model_copy(update={"coins": (TEMPLATE,)})
    write_raw_log(alone, TEMPLATE, hours)
    app = StoredApp(alone, lambda: NOW)
    process(app)
    with app.warehouse.begin() as connection:
        checked = {"coin": TEMPLATE, "currency": "usd", "since": NOW - HOUR * hours, "until": NOW}
        connection.execute(schema.checked_hours.insert(), checked)
        copies = [coin for coin in settings.coins if coin != TEMPLATE]
        if copies:
            _copy(connection, settings, copies)
        connection.execute(text("DELETE FROM pending_uploads"))
    app.warehouse.dispose()


def _copy(connection: Connection, settings: Settings, coins: list[str]) -> None:
    tables = [schema.metadata.tables[name] for name in ("raw_prices", "prices", "price_statistics", "checked_hours")]
    indexes = [index for table in tables for index in table.indexes]
    for index in indexes:
        index.drop(connection)
    connection.execute(text("CREATE TEMPORARY TABLE copies (coin TEXT)"))
    connection.execute(text("INSERT INTO copies VALUES (:coin)"), [{"coin": coin} for coin in coins])
    for table in tables:
        columns = ", ".join(column.name for column in table.c if column.name != "coin")
        connection.execute(
            text(
                f"INSERT INTO {table.name} (coin, {columns}) "  # noqa: S608 - names of the schema
                f"SELECT copies.coin, {columns} FROM copies, {table.name} WHERE {table.name}.coin = :template"
            ),
            {"template": TEMPLATE},
        )
    for index in indexes:
        index.create(connection)
    raw, processed = (path.read_bytes() for path in (settings.raw_path(TEMPLATE), settings.processed_path(TEMPLATE)))
    positions = []
    for coin in coins:
        lines = raw.replace(TEMPLATE.encode(), coin.encode())
        settings.raw_path(coin).write_bytes(lines)
        settings.processed_path(coin).write_bytes(processed.replace(TEMPLATE.encode(), coin.encode()))
        tail = lines[-TAIL:]
        digest = hashlib.sha256(tail).hexdigest()
        positions.append(
            {"log": f"raw:{coin}", "position": len(lines), "tail_length": len(tail), "tail_sha256": digest}
        )
    connection.execute(schema.log_positions.insert(), positions)


def write_prices(path: Path, coins: int, hours: int) -> None:
    """Write a CSV of coin, time and price, for engines that know no warehouse."""
    with path.open("w") as file:
        file.write("coin,ts,price\n")
        for number in range(coins):
            rows = make_rows(f"coin-{number:05}", hours, number)
            file.writelines(f"{row.coin},{row.timestamp},{row.price}\n" for row in rows)


def first_load(settings: Settings, hours: int) -> dict[str, float]:
    """Measure the first load of the raw logs of every coin: seconds in all, and the peak memory in MB."""
    for number, coin in enumerate(settings.coins):
        write_raw_log(settings, coin, hours, number)
    started = time.perf_counter()
    process(StoredApp(settings, lambda: NOW))
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main(path: str, coins: str, hours: str, what: str = "fill") -> None:
    """Store rows, and print the figures of a first load."""
    settings = bench_settings(Path(path), int(coins))
    figures = {}
    if what == "csv":
        write_prices(Path(path), int(coins), int(hours))
    elif what == "load":
        figures = first_load(settings, int(hours))
    else:
        fill(settings, int(hours))
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
