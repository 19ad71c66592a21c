"""What a live price shows when it is seen with those before it: its moves, whether it stands still or turns back. Pure.

One vectorised pass finds the prices to compare with; what is left to do for each row is a few numbers.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
import pandas as pd

from coinwatch.rules import MoveRule, RuleBook, Rules
from coinwatch.statistics.rolling import (
    HOUR,
    TOLERANCE_24H,
    WINDOW,
    Floats,
    Integers,
    Timeline,
    hour_references,
    takes_back,
)


@dataclass(frozen=True, slots=True)
class Move:
    """A price against an earlier one, judged by what was usual before it.

    Attributes:
        rule: ``move_1h`` or ``move_24h``.
        reference_price: The price that it is compared with.
        reference_ts: Time of that; none where it is not remembered.
        hours: Between the two, as the rule counts them: what really was for ``move_1h``, always 24 for ``move_24h``.
        log_return: ln(price / reference price).
        threshold: The size from which on it is abnormal, as a log return.
        usual: The usual move of that many hours, plus or minus, as a log return.
    """

    rule: Literal["move_1h", "move_24h"]
    reference_price: float
    reference_ts: datetime | None
    hours: float
    log_return: float
    threshold: float
    usual: float

    @property
    def is_abnormal(self) -> bool:
        """Whether it breaks its rule."""
        return abs(self.log_return) >= self.threshold


@dataclass(frozen=True, slots=True)
class Observation:
    """A live price.

    Attributes:
        coin: CoinGecko id.
        currency: Quote currency.
        ts: As-of time of the pull.
        price: In the quote currency.
        move_1h: Its move of about an hour; none if there is no price to compare with, or too little was learned.
        move_24h: Its move of a day, likewise.
        change_1h_pct: Change in about an hour in percent, however little was learned; none if it is not known.
        change_24h_pct: Change in a day, likewise.
        reverts: Time of the price before, if that was an abnormal move of an hour which this one takes back.
        stale: Why it is no news of the market, in words; empty if it is.
    """

    coin: str
    currency: str
    ts: datetime
    price: float
    move_1h: Move | None = None
    move_24h: Move | None = None
    change_1h_pct: float | None = None
    change_24h_pct: float | None = None
    reverts: datetime | None = None
    stale: str = ""


def observe(
    history: pd.DataFrame, currency: str, since: Mapping[str, datetime], rules: RuleBook
) -> Iterator[tuple[str, list[Observation]]]:
    """See the live prices of each coin from some time on.

    A move is judged by sigma as it was stored with the row before.

    Args:
        history: Columns coin, ts (datetime64, UTC), price (float64), source, age_minutes (float64: how old the price
            was at the pull; NaN unknown), sigma_variance and sigma_samples, sorted by coin and ts: each coin's rows
            from ``since`` on and those of 30 hours before.
        currency: Quote currency of the prices.
        since: Coin → from when on. Prices from history are compared with, and not seen themselves.
        rules: The rules of each coin.

    Yields:
        Coin, and its observations in the order of time.
    """
    columns = _Columns(history)
    for coin, numbers in history.groupby("coin", sort=False).indices.items():
        rows = np.asarray(numbers, dtype=np.int64)
        series = _Series(columns, str(coin), currency, rows, rules.for_coin(str(coin)))
        yield series.coin, list(series.observe(since[series.coin]))


class _Columns:
    """The columns of a history as arrays, read once for all coins."""

    def __init__(self, history: pd.DataFrame) -> None:
        self.timeline = Timeline(history)
        self.times: list[datetime] = pd.DatetimeIndex(history["ts"]).to_pydatetime().tolist()
        self.price: Floats = history["price"].to_numpy(np.float64)
        self.age: Floats = history["age_minutes"].to_numpy(np.float64)
        self.variance: Floats = history["sigma_variance"].to_numpy(np.float64)
        self.samples: Floats = history["sigma_samples"].to_numpy(np.float64)
        self.live = (history["source"] == "live").to_numpy()


@dataclass(frozen=True, slots=True)
class _Series:
    """The rows of one coin."""

    columns: _Columns
    coin: str
    currency: str
    rows: Integers
    rules: Rules

    def observe(self, since: datetime) -> Iterator[Observation]:
        columns, rows, timeline = self.columns, self.rows, self.columns.timeline
        first = int(rows[0])
        hour_ago, hours = hour_references(timeline, rows, self.rules.move_1h.late_hours_max)
        near_hour = timeline.nearest(rows, HOUR, HOUR // 2)
        day_ago = timeline.nearest(rows, WINDOW, TOLERANCE_24H)
        run_start = self._runs()
        moves: dict[int, Move | None] = {}

        def hour_move(row: int) -> Move | None:
            if row not in moves:
                number = row - first
                moves[row] = self._move("move_1h", self.rules.move_1h, row, int(hour_ago[number]), hours[number])
            return moves[row]

        for row in rows.tolist():
            if not columns.live[row] or columns.times[row] < since:
                continue
            number = row - first
            before = row - 1 if row > first else None
            yield Observation(
                coin=self.coin,
                currency=self.currency,
                ts=columns.times[row],
                price=float(columns.price[row]),
                move_1h=hour_move(row),
                move_24h=self._move("move_24h", self.rules.move_24h, row, int(day_ago[number]), 24.0),
                change_1h_pct=self._change_pct(row, int(near_hour[number])),
                change_24h_pct=self._change_pct(row, int(day_ago[number])),
                reverts=None if before is None else self._reverted(hour_move(before), before, row),
                stale=self._stale(row, run_start.get(row)),
            )

    def _move(
        self, name: Literal["move_1h", "move_24h"], rule: MoveRule, row: int, reference: int, hours: float
    ) -> Move | None:
        columns = self.columns
        if reference < 0 or not columns.samples[row - 1] >= self.rules.warm_up_samples:
            return None
        usual = math.sqrt(columns.variance[row - 1] * hours)
        price = float(columns.price[reference])
        return Move(
            rule=name,
            reference_price=price,
            reference_ts=columns.times[reference],
            hours=float(hours),
            log_return=math.log(columns.price[row] / price),
            threshold=max(rule.sigmas * usual, rule.min_pct / 100),
            usual=usual,
        )

    def _change_pct(self, row: int, reference: int) -> float | None:
        return None if reference < 0 else 100 * float(self.columns.price[row] / self.columns.price[reference] - 1)

    def _reverted(self, move: Move | None, before: int, row: int) -> datetime | None:
        if move is None or not move.is_abnormal:
            return None
        back = math.log(self.columns.price[row] / self.columns.price[before])
        hours = float((self.columns.timeline.key[row] - self.columns.timeline.key[before]) / HOUR)
        return self.columns.times[before] if takes_back(move.log_return, back, hours, self.rules.move_1h) else None

    def _runs(self) -> dict[int, tuple[int, int]]:
        """For each live row, how many pulls running had exactly its price, and the first of them."""
        runs: dict[int, tuple[int, int]] = {}
        key, price = self.columns.timeline.key, self.columns.price
        apart = self.rules.move_1h.late_hours_max * HOUR
        count, start, before = 0, -1, -1
        for row in self.rows[self.columns.live[self.rows]].tolist():
            # Pulls that an outage parts do not run on.
            if before >= 0 and price[row] == price[before] and key[row] - key[before] <= apart:
                count += 1
            else:
                count, start = 1, row
            runs[row], before = (count, start), row
        return runs

    def _stale(self, row: int, run: tuple[int, int] | None) -> str:
        rule = self.rules.stale
        age = self.columns.age[row]
        if age > rule.age_minutes:
            return f"CoinGecko's price was {age:.0f} minutes old when it was fetched"
        if run is None:
            return ""
        count, start = run
        hours = (self.columns.timeline.key[row] - self.columns.timeline.key[start]) / HOUR
        if count >= rule.polls and hours >= rule.min_hours:
            return f"{count} pulls in a row had exactly this price, over {hours:.0f} hours"
        return ""
