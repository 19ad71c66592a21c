"""Rolling statistics of prices (contract, section 5), and what detection compares a price with. Pure.

One vectorised pass over all coins. A row depends on the prices in its own windows only, bit for bit: with a running sum
and its rounding errors, a row computed alone would differ from the same row computed among thousands.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinwatch.rules import RuleBook, Rules
from coinwatch.statistics import sigma

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]

HOUR = 3_600_000_000
"""In microseconds, the unit of all times in this module."""

WINDOW = 24 * HOUR
TOLERANCE_1H = HOUR // 2
TOLERANCE_24H = HOUR
ZSCORE_POINTS = 12
"""Points that a z-score needs at least."""

_CHUNK = 2_000_000
"""Window points held in memory at once."""


def compute_statistics(prices: pd.DataFrame, since: Mapping[str, datetime], rules: RuleBook) -> pd.DataFrame:
    """Compute the statistics of each coin's rows from some time on.

    Args:
        prices: Columns coin (str), ts (datetime64, UTC), price (float64, > 0), source (live or history), and, as they
            are stored for the rows before ``since``, sigma_variance, sigma_samples, unchanged_polls (float64) and
            unchanged_since (datetime64, UTC); sorted by coin and ts, no time twice. Of each coin the rows from
            ``since`` on, those of the 25 hours before (the reference of a day is at most that old), and at least the
            last row before.
        since: Coin → from when on; nothing is computed for a coin that is absent.
        rules: Of all coins.

    Returns:
        The rows from ``since`` on with the columns of ``price_statistics``, indexed as in ``prices``; NaN and NaT are
        unknown.
    """
    codes, names = prices["coin"].factorize()
    books = [rules.for_coin(str(name)) for name in names]
    times: Integers = prices["ts"].dt.as_unit("us").astype("int64").to_numpy()
    price: Floats = prices["price"].to_numpy(np.float64)
    # One axis for all coins, far enough apart that no window reaches from one coin into another.
    span = int(np.ptp(times)) + 2 * WINDOW if len(times) else 0
    key: Integers = codes.astype(np.int64) * span + times
    late_hours: Floats = np.array([book.move_1h.late_hours_max for book in books], np.float64)[codes]
    begins = pd.to_datetime(prices["coin"].map(dict(since)), utc=True)
    wanted: Booleans = (prices["ts"] >= begins).to_numpy()
    rows: Integers = np.flatnonzero(wanted)

    near_hour = _nearest(key, HOUR, TOLERANCE_1H)
    before = np.arange(len(key)) - 1
    hours: Floats = (key - key[before]) / HOUR
    # A late poll is compared with the price before it. The first row of a coin is days away from the one before.
    is_late = (near_hour < 0) & (before >= 0) & (hours <= late_hours)
    hour_ago = np.where(is_late, before, near_hour)
    day_ago = _nearest(key, WINDOW, TOLERANCE_24H)
    hour_price = np.where(hour_ago >= 0, price[hour_ago], np.nan)
    reference_hours: Floats = (key - key[hour_ago]) / HOUR
    moves = sigma.prepare(price, hour_price, hours, reference_hours, books, codes)
    variance, samples, reverts, prior = _learn(prices, codes, wanted, moves, books)
    unchanged_since, unchanged_polls = _unchanged(prices, times, key, price, wanted, late_hours)

    start = np.searchsorted(key, key[rows] - WINDOW, side="right")
    points = rows + 1 - start
    mean, std, zscore = _windows(price, rows, start)
    ts = prices["ts"].array
    return pd.DataFrame(
        {
            "coin": prices["coin"].to_numpy()[rows],
            "ts": ts[rows],
            "price": price[rows],
            "points_24h": points,
            "rolling_mean_24h": mean,
            "rolling_std_24h": std,
            "zscore_24h": zscore,
            "change_1h_pct": _change_pct(price, near_hour)[rows],
            "change_24h_pct": _change_pct(price, day_ago)[rows],
            "sigma_1h_pct": np.where(samples > 0, 100 * np.sqrt(variance), np.nan)[rows],
            "sigma_samples": samples[rows],
            "sigma_variance": variance[rows],
            "reference_1h_ts": ts.take(hour_ago[rows], allow_fill=True),
            "reference_1h_price": hour_price[rows],
            "reference_24h_ts": ts.take(day_ago[rows], allow_fill=True),
            "reference_24h_price": np.where(day_ago >= 0, price[day_ago], np.nan)[rows],
            "prior_variance": prior[rows],
            "reverts_ts": ts.take(np.where(reverts, before, -1)[rows], allow_fill=True),
            "unchanged_since": unchanged_since[rows],
            "unchanged_polls": unchanged_polls[rows],
        },
        index=prices.index[rows],
        copy=False,
    )


def to_records(statistics: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as dicts of plain Python values; unknown is None."""
    columns = {str(name): _plain(column) for name, column in statistics.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _plain(column: "pd.Series[Any]") -> list[Any]:
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        moments = pd.DatetimeIndex(column).to_pydatetime()
        return [None if unknown else moment for moment, unknown in zip(moments, column.isna(), strict=True)]
    return [None if value != value else value for value in column.tolist()]  # noqa: PLR0124 - only NaN differs


def _nearest(key: Integers, distance: int, tolerance: int) -> Integers:
    """Return for each row the number of the one before it that is nearest to a time some microseconds ago.

    Of two that are as near it is the earlier one; -1 where there is none within the tolerance.
    """
    rows = np.arange(len(key))
    target = key - distance
    right = np.searchsorted(key, target, side="left")
    left = right - 1
    unreachable = np.iinfo(np.int64).max
    gap_left = np.where(left >= 0, target - key[left], unreachable)
    gap_right = np.where(right < rows, key[np.minimum(right, rows)] - target, unreachable)
    found = np.where(gap_left <= gap_right, left, right)
    return np.where(np.minimum(gap_left, gap_right) <= tolerance, found, -1)


def _windows(price: Floats, rows: Integers, start: Integers) -> tuple[Floats, Floats, Floats]:
    """Return mean and sample standard deviation of the windows that end at some rows, and the z-score.

    The deviation is NaN below two points. The z-score is how many standard deviations the last price of a window is
    away from the mean of those before it.
    """
    points = rows + 1 - start
    mean, std, zscore = (np.full(len(rows), np.nan) for _ in range(3))
    for part in _chunks(points):
        size, first = points[part], price[start[part]]
        begin = np.cumsum(size) - size
        # Measured from the window's first price: a price that does not move has a deviation of exactly 0.
        shifted = price[np.arange(size.sum()) + np.repeat(start[part] - begin, size)] - np.repeat(first, size)
        shifted_mean, std[part] = _mean_and_std(shifted, begin, size, size)
        mean[part] = first + shifted_mean
        # The windows without their last points: the sums of those are every second one.
        bounds = np.column_stack([begin, begin + size - 1]).ravel()
        shifted_mean, spread = _mean_and_std(shifted, bounds, size, np.maximum(size - 1, 1), every=2)
        is_known = (size > ZSCORE_POINTS) & (spread > 0)
        distance = price[rows[part]] - (first + shifted_mean)
        zscore[part] = np.divide(distance, spread, out=np.full(len(size), np.nan), where=is_known)
    return mean, std, zscore


def _mean_and_std(
    values: Floats, bounds: Integers, size: Integers, points: Integers, every: int = 1
) -> tuple[Floats, Floats]:
    """Return mean and sample standard deviation of the values between each two bounds, or every second two.

    Args:
        values: Of all windows, one after the other.
        bounds: Where the sums start.
        size: Values of each window.
        points: Values of each window that are summed.
        every: Which of the sums count.
    """
    mean = np.add.reduceat(values, bounds)[::every] / points
    squares = np.add.reduceat((values - np.repeat(mean, size)) ** 2, bounds)[::every]
    return mean, np.sqrt(np.divide(squares, points - 1, out=np.full(len(size), np.nan), where=points > 1))


def _chunks(points: Integers) -> Iterator[slice]:
    """Yield slices of windows that have about ``_CHUNK`` points together."""
    bounds = np.searchsorted(np.cumsum(points), np.arange(_CHUNK, points.sum() + _CHUNK, _CHUNK)).tolist()
    start = 0
    for bound in bounds:
        end = min(bound + 1, len(points))
        if end > start:
            yield slice(start, end)
        start = end


def _change_pct(price: Floats, reference: Integers) -> Floats:
    return np.where(reference >= 0, 100 * (price / price[reference] - 1), np.nan)


def _learn(
    prices: pd.DataFrame, codes: Integers, wanted: Booleans, moves: Mapping[str, list[Any]], books: Sequence[Rules]
) -> tuple[Floats, Integers, Booleans, Floats]:
    """Return sigma's variance and samples after each row, whether it reverts a spike, and the variance that judges it.

    The last is the variance before the row; NaN while fewer moves were learned than the warm-up asks for.
    """
    variance = prices["sigma_variance"].fillna(0.0).to_numpy(np.float64, copy=True)
    samples = prices["sigma_samples"].fillna(0).to_numpy(np.int64, copy=True)
    reverts = np.zeros(len(codes), np.bool_)
    prior = np.full(len(codes), np.nan)
    ends = np.searchsorted(codes, np.arange(len(books)), side="right").tolist()
    news = np.bincount(codes, wanted, len(books)).astype(int).tolist()
    start = 0
    for end, new, book in zip(ends, news, books, strict=True):
        first = end - new
        if new:
            variances, counts = variance[start:first].tolist(), samples[start:first].tolist()
            of_coin = {name: column[start:end] for name, column in moves.items()}
            reverts[[start + row for row in sigma.learn(of_coin, variances, counts, book)]] = True
            variance[start:end], samples[start:end] = variances, counts
            is_known = samples[start : end - 1] >= book.warm_up_samples
            prior[start + 1 : end] = np.where(is_known, variance[start : end - 1], np.nan)
        start = end
    return variance, samples, reverts, prior


def _unchanged(
    prices: pd.DataFrame, times: Integers, key: Integers, price: Floats, wanted: Booleans, late_hours: Floats
) -> tuple[pd.DatetimeIndex, Floats]:
    """Return for each live row how many polls in a row had exactly its price, and the time of the first of them.

    A stored row goes on from its own count. Polls with an outage between them are not in a row.
    """
    rows = np.flatnonzero(prices["source"] == "live")
    stored = ~wanted & prices["unchanged_polls"].notna().to_numpy()
    polls = np.where(stored, prices["unchanged_polls"].to_numpy(np.float64), 1.0)[rows]
    since = np.where(stored, prices["unchanged_since"].dt.as_unit("us").astype("int64").to_numpy(), times)[rows]
    before = np.maximum(np.arange(len(rows)) - 1, 0)
    same = (price[rows] == price[rows[before]]) & ((key[rows] - key[rows[before]]) / HOUR <= late_hours[rows])
    counted = ~same | ~wanted[rows] | (before == np.arange(len(rows)))
    number = np.arange(len(rows))
    start = np.maximum.accumulate(np.where(counted, number, 0))
    all_polls = np.full(len(key), np.nan)
    all_polls[rows] = polls[start] + number - start
    all_since = np.full(len(key), np.iinfo(np.int64).min)
    all_since[rows] = since[start]
    return pd.DatetimeIndex(all_since.view("datetime64[us]"), tz="UTC"), all_polls
