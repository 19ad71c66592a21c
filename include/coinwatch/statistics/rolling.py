"""Rolling statistics of prices: definitions in the contract, section 5; one vectorised pass over all coins.

What a row gets depends on the prices in its own windows only, bit for bit. A running sum would carry rounding errors
from row to row, and a row computed alone would differ from the same row computed among thousands.
"""

import math
from collections.abc import Iterator, Mapping
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinwatch.rules import HourMoveRule, RuleBook
from coinwatch.statistics import sigma as volatility
from coinwatch.statistics.sigma import Volatility

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

HOUR = 3_600_000_000
"""In microseconds, the unit of all times in here."""

WINDOW = 24 * HOUR
TOLERANCE_1H = HOUR // 2
TOLERANCE_24H = HOUR
ZSCORE_POINTS = 12
"""Fewer points than this in its window, and a z-score says nothing."""

_CHUNK = 2_000_000
"""Window points held in memory at once."""


class Timeline:
    """The rows of several coins on one axis, far enough apart that no window reaches from one coin into another.

    Attributes:
        key: Ascending; differences within a coin are microseconds.
        coin: Number of the row's coin.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self.coin: Integers = frame["coin"].factorize()[0].astype(np.int64)
        times: Integers = frame["ts"].dt.as_unit("us").astype("int64").to_numpy()
        first = int(times.min()) if len(times) else 0
        span = (int(times.max()) - first if len(times) else 0) + 2 * WINDOW
        self.key: Integers = self.coin * span + (times - first)

    def nearest(self, rows: Integers, distance: int, tolerance: int) -> Integers:
        """For each row, the one before it that is nearest to a distance in the past; of two as near the earlier one.

        Args:
            rows: Numbers of rows.
            distance: Microseconds before the row.
            tolerance: How far from there it may be, microseconds.

        Returns:
            Numbers of rows; -1 where there is none.
        """
        target = self.key[rows] - distance
        right = np.searchsorted(self.key, target, side="left")
        left = right - 1
        unreachable = np.iinfo(np.int64).max
        gap_left = np.where(left >= 0, target - self.key[np.maximum(left, 0)], unreachable)
        gap_right = np.where(right < rows, self.key[np.minimum(right, rows)] - target, unreachable)
        found = np.where(gap_left <= gap_right, left, right)
        return np.where(np.minimum(gap_left, gap_right) <= tolerance, found, -1)

    def hours_between(self, earlier: Integers, later: Integers) -> Floats:
        """Hours between two rows of one coin each."""
        hours: Floats = (self.key[later] - self.key[earlier]) / HOUR
        return hours


def hour_references(timeline: Timeline, rows: Integers, late_hours_max: float) -> tuple[Integers, Floats]:
    """The rows that a move of an hour is measured from, and the hours between.

    The price nearest to an hour before; if there is none because the pull came late, the one before it.

    Args:
        timeline: Of all rows.
        rows: Numbers of rows.
        late_hours_max: Hours that the price before may lie back.

    Returns:
        Numbers of rows, -1 where there is none, and hours, NaN there.
    """
    references = timeline.nearest(rows, HOUR, TOLERANCE_1H)
    before = np.maximum(rows - 1, 0)
    same_coin = (rows > 0) & (timeline.coin[before] == timeline.coin[rows])
    late = (references < 0) & same_coin & (timeline.hours_between(before, rows) <= late_hours_max)
    references = np.where(late, before, references)
    hours = np.where(references >= 0, timeline.hours_between(np.maximum(references, 0), rows), np.nan)
    return references, hours


def takes_back(move: float, back: float, hours: float, rule: HourMoveRule) -> bool:
    """Whether a move shows that the one before it was a spike.

    Args:
        move: Log return of the move before.
        back: Log return from the price that it led to.
        hours: Between that price and this one.
        rule: How much has to be taken back, and how soon.
    """
    return move * back < 0 and abs(back) >= rule.revert_fraction * abs(move) and hours <= rule.revert_hours


def compute_statistics(prices: pd.DataFrame, since: Mapping[str, datetime], rules: RuleBook) -> pd.DataFrame:
    """Compute the statistics of each coin's rows from some time on.

    Args:
        prices: Columns coin (str), ts (datetime64, UTC), price (float64, > 0), sigma_variance and sigma_samples
            (float64; what had been learned after a row before ``since``), sorted by coin and ts, no time twice.
            For each coin its rows from ``since`` on, those of the 25 hours before, with the one at exactly 25 hours
            (the reference of a day reaches that far), and at least the last row before.
        since: Coin → from when on; nothing is computed for a coin that is absent.
        rules: How the usual move is learned.

    Returns:
        The rows from ``since`` on, with columns coin, ts, price, points_24h and sigma_samples (int64), and
        rolling_mean_24h, rolling_std_24h, zscore_24h, change_1h_pct, change_24h_pct, sigma_1h_pct (percent) and
        sigma_variance (float64; NaN is unknown).
    """
    timeline = Timeline(prices)
    price: Floats = prices["price"].to_numpy(np.float64)
    wanted = (prices["ts"] >= pd.to_datetime(prices["coin"].map(dict(since)), utc=True)).to_numpy()
    rows: Integers = np.flatnonzero(wanted).astype(np.int64)
    start = np.searchsorted(timeline.key, timeline.key[rows] - WINDOW, side="right")
    points = rows + 1 - start
    mean, std = _mean_and_std(price, start, points)
    variance, samples = _learn(prices, timeline, price, rows, rules)
    return pd.DataFrame(
        {
            "coin": prices["coin"].to_numpy()[rows],
            "ts": prices["ts"].array[rows],
            "price": price[rows],
            "points_24h": points,
            "rolling_mean_24h": mean,
            "rolling_std_24h": std,
            "zscore_24h": _zscore(price, rows, start, points - 1),
            "change_1h_pct": _change_pct(price, rows, timeline.nearest(rows, HOUR, TOLERANCE_1H)),
            "change_24h_pct": _change_pct(price, rows, timeline.nearest(rows, WINDOW, TOLERANCE_24H)),
            "sigma_1h_pct": np.where(samples > 0, 100 * np.sqrt(variance), np.nan),
            "sigma_samples": samples,
            "sigma_variance": variance,
        }
    )


def _mean_and_std(price: Floats, start: Integers, points: Integers) -> tuple[Floats, Floats]:
    """Mean and sample standard deviation of windows of at least one point; the latter NaN below two."""
    mean, std = np.full(len(start), np.nan), np.full(len(start), np.nan)
    for part in _chunks(points):
        size, first = points[part], price[start[part]]
        offsets = np.cumsum(size) - size
        window = np.arange(size.sum()) + np.repeat(start[part] - offsets, size)
        # Measured from the window's first price: a price that does not move has a deviation of exactly 0.
        shifted = price[window] - np.repeat(first, size)
        shifted_mean = np.add.reduceat(shifted, offsets) / size
        squares = np.add.reduceat((shifted - np.repeat(shifted_mean, size)) ** 2, offsets)
        mean[part] = first + shifted_mean
        std[part] = np.sqrt(np.divide(squares, size - 1, out=np.full(len(size), np.nan), where=size > 1))
    return mean, std


def _chunks(points: Integers) -> Iterator[slice]:
    """Slices of windows that have about ``_CHUNK`` points together."""
    bounds = np.searchsorted(np.cumsum(points), np.arange(_CHUNK, points.sum() + _CHUNK, _CHUNK)).tolist()
    start = 0
    for bound in bounds:
        end = min(bound + 1, len(points))
        if end > start:
            yield slice(start, end)
        start = end


def _zscore(price: Floats, rows: Integers, start: Integers, points: Integers) -> Floats:
    """How many standard deviations a price is from the mean of those before it in its window."""
    zscore = np.full(len(rows), np.nan)
    enough = np.flatnonzero(points >= ZSCORE_POINTS)
    mean, std = _mean_and_std(price, start[enough], points[enough])
    spread = std > 0
    zscore[enough[spread]] = (price[rows[enough[spread]]] - mean[spread]) / std[spread]
    return zscore


def _change_pct(price: Floats, rows: Integers, reference: Integers) -> Floats:
    change = np.full(len(rows), np.nan)
    found = reference >= 0
    change[found] = 100 * (price[rows[found]] / price[reference[found]] - 1)
    return change


def _learn(
    prices: pd.DataFrame, timeline: Timeline, price: Floats, rows: Integers, rules: RuleBook
) -> tuple[Floats, Integers]:
    """Sigma's memory after each row. Each needs the ones before it, so this is the one loop over rows.

    A spike teaches nothing: when the price comes back, what was learned before the spike holds again.
    """
    states = _known_states(prices, rows)
    names = prices["coin"].to_numpy()
    variance, samples = np.empty(len(rows)), np.empty(len(rows), dtype=np.int64)
    coin, learner = None, None
    for number, row in enumerate(rows.tolist()):
        if learner is None or names[row] != coin:
            coin = names[row]
            learner = _Learner(timeline, price, rows[names[rows] == coin], rules, str(coin), states)
        state = states[row] = learner.state_after(row)
        variance[number], samples[number] = state.variance, state.samples
    return variance, samples


def _known_states(prices: pd.DataFrame, rows: Integers) -> dict[int, Volatility]:
    """What had been learned after each row that is not to be learned from again."""
    known = np.setdiff1d(np.flatnonzero(prices["sigma_samples"].notna()), rows)
    variance, samples = prices["sigma_variance"].to_numpy(), prices["sigma_samples"].to_numpy()
    return {row: Volatility(float(variance[row]), int(samples[row])) for row in known.tolist()}


class _Learner:
    """What is learned of one coin's moves, row by row.

    Args:
        timeline: Of all rows.
        price: Of all rows.
        rows: The coin's rows that are learned from.
        rules: Of all coins.
        coin: CoinGecko id.
        states: What was learned after each row so far; it grows.
    """

    def __init__(
        self,
        timeline: Timeline,
        price: Floats,
        rows: Integers,
        rules: RuleBook,
        coin: str,
        states: Mapping[int, Volatility],
    ) -> None:
        self._key = timeline.key
        self._coin = timeline.coin
        self._price = price
        self._rules = rules.for_coin(coin)
        self._states = states
        # Whether a row takes back a spike depends on the row before it, which may have been learned from long ago.
        first = max(int(rows[0]) - 1, 0)
        span = np.arange(first, int(rows[-1]) + 1)
        references, hours = hour_references(timeline, span, self._rules.move_1h.late_hours_max)
        self._first = first
        self._references: list[int] = references.tolist()
        self._hours: list[float] = hours.tolist()

    def state_after(self, row: int) -> Volatility:
        """What is known after a row."""
        if row == 0 or self._coin[row - 1] != self._coin[row]:
            return Volatility.start()
        before = self._states.get(row - 1, Volatility.start())
        log_return = math.log(self._price[row] / self._price[row - 1])
        hours = float((self._key[row] - self._key[row - 1]) / HOUR)
        spike = self._abnormal_move(row - 1)
        if spike is not None and takes_back(spike, log_return, hours, self._rules.move_1h):
            return self._states[row - 2]
        return volatility.update(before, log_return, hours, self._rules.sigma)

    def _abnormal_move(self, row: int) -> float | None:
        """The move of an hour that led to a row, if it broke its rule and it is known what was known before it."""
        reference, before = self._references[row - self._first], self._states.get(row - 1)
        if reference < 0 or before is None or before.samples < self._rules.warm_up_samples:
            return None
        move = math.log(self._price[row] / self._price[reference])
        usual = math.sqrt(before.variance * self._hours[row - self._first])
        rule = self._rules.move_1h
        return move if abs(move) >= max(rule.sigmas * usual, rule.min_pct / 100) else None
