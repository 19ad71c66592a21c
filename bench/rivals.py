"""Measure the statistics of a CSV of prices, beside DuckDB and polars; run in a process of its own for each."""

import json
import resource
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

DUCKDB = """
WITH p AS (SELECT coin, ts, price FROM read_csv('{path}')),
near AS (
    SELECT p.coin, p.ts, p.price, a.ts AS a_ts, a.price AS a, b.ts AS b_ts, b.price AS b, c.ts AS c_ts, c.price AS c,
           d.ts AS d_ts, d.price AS d
    FROM p
    ASOF LEFT JOIN p a ON a.coin = p.coin AND a.ts <= p.ts - INTERVAL 1 HOUR
    ASOF LEFT JOIN p b ON b.coin = p.coin AND b.ts >= p.ts - INTERVAL 1 HOUR
    ASOF LEFT JOIN p c ON c.coin = p.coin AND c.ts <= p.ts - INTERVAL 24 HOUR
    ASOF LEFT JOIN p d ON d.coin = p.coin AND d.ts >= p.ts - INTERVAL 24 HOUR
)
SELECT coin, ts, price,
    count(*) OVER day AS points_24h, avg(price) OVER day AS mean, stddev_samp(price) OVER day AS std,
    (price - avg(price) OVER before) / stddev_samp(price) OVER before AS zscore,
    100 * (price / CASE
        WHEN ts - INTERVAL 1 HOUR - a_ts <= least(b_ts - ts + INTERVAL 1 HOUR, INTERVAL 30 MINUTE) THEN a
        WHEN b_ts - ts + INTERVAL 1 HOUR <= INTERVAL 30 MINUTE THEN b END - 1) AS change_1h,
    100 * (price / CASE
        WHEN ts - INTERVAL 24 HOUR - c_ts <= least(d_ts - ts + INTERVAL 24 HOUR, INTERVAL 1 HOUR) THEN c
        WHEN d_ts - ts + INTERVAL 24 HOUR <= INTERVAL 1 HOUR THEN d END - 1) AS change_24h
FROM near
WINDOW day AS (PARTITION BY coin ORDER BY ts
               RANGE BETWEEN INTERVAL '23 hours 59 minutes 59 seconds' PRECEDING AND CURRENT ROW),
       before AS (PARTITION BY coin ORDER BY ts
                  RANGE BETWEEN INTERVAL '23 hours 59 minutes 59 seconds' PRECEDING AND INTERVAL 1 SECOND PRECEDING)
"""


def with_duckdb(path: Path) -> Callable[[], Any]:
    """Compute the columns of the processed CSV with DuckDB; it does not learn sigma."""
    import duckdb

    return lambda: duckdb.sql(f"CREATE OR REPLACE TEMP TABLE result AS {DUCKDB.format(path=path)}")


def with_polars(path: Path) -> Callable[[], Any]:
    """Compute the columns of the processed CSV with polars; it does not learn sigma."""
    import polars as pl

    def compute() -> Any:
        prices = pl.read_csv(path, try_parse_dates=True).sort("coin", "ts")
        windows = {"index_column": "ts", "period": "24h", "group_by": "coin"}
        day = prices.rolling(closed="right", **windows).agg(
            pl.len().alias("points_24h"), pl.col("price").mean().alias("mean"), pl.col("price").std().alias("std")
        )
        before = prices.rolling(closed="none", **windows).agg(
            pl.col("price").mean().alias("mean"), pl.col("price").std().alias("std")
        )
        result = day.with_columns(price=prices["price"], zscore=(prices["price"] - before["mean"]) / before["std"])
        for name, hours, tolerance in (("change_1h", 1, "30m"), ("change_24h", 24, "1h")):
            asked = prices.select("coin", at=pl.col("ts") - pl.duration(hours=hours))
            near = asked.join_asof(
                prices,
                left_on="at",
                right_on="ts",
                by="coin",
                strategy="nearest",
                tolerance=tolerance,
                check_sortedness=False,
            )
            result = result.with_columns((100 * (prices["price"] / near["price"] - 1)).alias(name))
        return result

    return compute


def with_coinwatch(path: Path) -> Callable[[], Any]:
    """Compute every column of ``price_statistics``, with sigma and what detection compares with."""
    import pandas as pd

    from coinwatch.rules import load_rules
    from coinwatch.settings import load_settings
    from coinwatch.statistics.rolling import compute_statistics

    rules = load_rules(load_settings().config)

    def compute() -> Any:
        prices = pd.read_csv(path, dtype={"coin": "category"})
        prices["ts"] = pd.to_datetime(prices["ts"], format="ISO8601", utc=True)
        prices = prices.assign(source="history", sigma_variance=float("nan"), sigma_samples=float("nan"))
        prices["unchanged_polls"] = float("nan")
        prices["unchanged_since"] = pd.Series(pd.NaT, prices.index, prices["ts"].dtype)
        since = dict.fromkeys(map(str, prices["coin"].cat.categories), datetime.fromisoformat("1900-01-01T00:00:00Z"))
        return compute_statistics(prices.astype({"coin": "object"}), since, rules)

    return compute


ENGINES = {"coinwatch": with_coinwatch, "DuckDB": with_duckdb, "polars": with_polars}


def main(engine: str, path: str, runs: str) -> None:
    """Print the seconds of some runs, and the peak memory in MB."""
    compute = ENGINES[engine](Path(path))
    seconds = []
    for _ in range(int(runs)):
        started = time.perf_counter()
        compute()
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
