"""Prices to analyse, without a warehouse."""

import math
from datetime import UTC, datetime
from itertools import groupby

import pandas as pd

from coinwatch.alerts.observe import observe
from coinwatch.statistics.rolling import compute_statistics, to_records

LONG_AGO = datetime(1990, 1, 1, tzinfo=UTC)

STORED = ("sigma_variance", "sigma_samples", "unchanged_since", "unchanged_polls")
"""What a row before the new ones has from its own statistics."""


def as_prices(rows):
    """Make a frame of (coin, time, price, source), by coin and time, none of them computed yet."""
    frame = pd.DataFrame(rows, columns=["coin", "ts", "price", "source"]).astype({"price": "float64"})
    frame["ts"] = pd.to_datetime(frame["ts"], utc=True)
    no_time = pd.Series(pd.NaT, frame.index, frame["ts"].dtype)
    return frame.assign(
        sigma_variance=math.nan, sigma_samples=math.nan, unchanged_since=no_time, unchanged_polls=math.nan
    )


def compute(prices, rules, since=LONG_AGO):
    """Compute the statistics of all coins from a time on."""
    return compute_statistics(prices, dict.fromkeys(prices["coin"], since), rules)


def observations(prices, rules, since=LONG_AGO, ages=None):
    """Observe the live prices from a time on: coin → observations. Ages in minutes by time; 1 for the others."""
    found = {}
    for coin, rows in groupby(to_records(compute(prices, rules, since)), key=lambda row: row["coin"]):
        live = [row for row in rows if row["unchanged_polls"] is not None]
        found[coin] = [
            observe({**row, "currency": "usd", "age_minutes": (ages or {}).get(row["ts"], 1.0)}, rules.for_coin(coin))
            for row in live
        ]
    return found
