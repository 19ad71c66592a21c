"""Measure what docs/scaling.md promises: ``make bench``, or ``make bench ARGS="stored coins"`` for some parts of it.

Each figure is the median of several runs, in a process of its own; a rival runs in the same invocation.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
PROJECT = HERE.parent

Row = dict[str, Any]

EMPTY_DAG = """
from airflow.sdk import dag, task

@dag(schedule=None, tags=["bench"])
def empty():
    last = None
    for number in range({tasks}):
        @task(task_id=f"task_{{number}}")
        def nothing():
            pass
        instance = nothing()
        if last is not None:
            last >> instance
        last = instance

empty()
"""


def measure(script: str, *arguments: object, **environment: str) -> Any:
    """Run a script of this folder in a process of its own; return what it printed last."""
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    result = subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def hour_of(folder: Path, coins: int, hours: int) -> Row:
    """Measure an hour with some coins and stored hours: the median of three after a first one."""
    measure("stored.py", folder, coins, hours)
    measured = measure("hour.py", folder, coins, 4)
    shutil.rmtree(folder)
    later = measured["hours"][1:]
    steps = {name: round(statistics.median(each[name] for each in later), 3) for name in later[0]}
    seconds = statistics.median(sum(each.values()) for each in later)
    return {"coins": coins, "rows stored": coins * hours, "seconds": seconds, "MB": measured["peak_mb"], "steps": steps}


def stored(folder: Path, *, large: bool) -> Iterator[Row]:
    """One hour of 10 coins, by rows stored."""
    first = None
    for hours in (100, 10_000, 100_000, *([1_000_000] if large else [])):
        row = hour_of(folder / "data", 10, hours)
        first = first or row
        yield row | {"time ×": row["seconds"] / first["seconds"], "memory ×": row["MB"] / first["MB"]}


def coins(folder: Path, *, large: bool) -> Iterator[Row]:
    """One hour, by coins with 90 days stored of each."""
    for number in (1, 100, 1000, 5000, *([17_000] if large else [])):
        yield hour_of(folder / "data", number, 90 * 24)


def rolling(folder: Path, *, large: bool) -> Iterator[Row]:
    """Statistics of 10 coins × 10 years from a CSV; DuckDB and polars compute no sigma."""
    path = folder / "prices.csv"
    measure("stored.py", path, 10, 87_600, "csv")
    rows = [{"engine": engine, **measure("rivals.py", engine, path, 5)} for engine in ("coinwatch", "DuckDB", "polars")]
    own = statistics.median(rows[0]["seconds"])
    for row in rows:
        seconds = statistics.median(row["seconds"])
        yield {"engine": row["engine"], "seconds": seconds, "MB": row["peak_mb"], "coinwatch ×": own / seconds}


def first_load(folder: Path, *, large: bool) -> Iterator[Row]:
    """The first load of long logs: raw prices, statistics and processed CSV."""
    for number, hours in ((1, 1_000_000 if large else 100_000), (1000, 2160 if large else 100)):
        measured = measure("stored.py", folder / "data", number, hours, "load")
        yield {"coins": number, "rows": number * hours, **measured}
        shutil.rmtree(folder / "data")


def median_seconds(command: list[str], environment: dict[str, str], runs: int = 5) -> float:
    """Return how long a command takes."""
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def parse(folder: Path, *, large: bool) -> Iterator[Row]:
    """Parsing the largest Dag file, by coins, beside an empty Dag of as many tasks."""
    (folder / "empty.py").write_text(EMPTY_DAG.format(tasks=6))
    environment = {"AIRFLOW_HOME": str(folder), "COINWATCH_DATA_DIR": str(folder / "data")}
    empty = median_seconds([sys.executable, str(folder / "empty.py")], environment)
    for number in (1, 5000):
        watched = ",".join(f"coin-{each:05}" for each in range(number))
        command = [sys.executable, str(PROJECT / "dags" / "process_prices.py")]
        seconds = median_seconds(command, environment | {"COINWATCH_COINS": watched})
        yield {"coins": number, "seconds": seconds, "empty Dag": empty, "empty ×": seconds / empty}


PARTS: dict[str, Callable[..., Iterator[Row]]] = {
    "stored": stored,
    "coins": coins,
    "statistics": rolling,
    "load": first_load,
    "parse": parse,
}


def show(title: str, rows: list[Row]) -> None:
    """Print the rows of a part."""
    columns = [name for name in rows[0] if name != "steps"]
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            *(
                f"{row[name]:,.2f}"
                if isinstance(row[name], float)
                else f"{row[name]:,}"
                if isinstance(row[name], int)
                else row[name]
                for name in columns
            )
        )
    Console().print(table)


def main() -> None:
    """Run the parts that are asked for, and write ``bench.json``."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all of them by default")
    parser.add_argument("--large", action="store_true", help="also 10 million rows and 17,000 coins (60 GB of disk)")
    options = parser.parse_args()
    results: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory(prefix="coinwatch-bench-") as folder:
        os.environ["AIRFLOW_HOME"] = str(Path(folder) / "airflow")
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
        for name in options.parts or PARTS:
            results[name] = []
            for row in PARTS[name](Path(folder), large=options.large):
                results[name].append(row)
                (PROJECT / "bench.json").write_text(json.dumps(results, indent=2) + "\n")
            show(PARTS[name].__doc__ or name, results[name])


if __name__ == "__main__":
    main()
