"""Which prices are abnormal moves: the rules move_1h and move_24h, decided purely (docs: how anomalies are found)."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
import pandas as pd

from coinwatch.analysis.statistics import HOUR, TOLERANCE_1H, TOLERANCE_24H, WINDOW, Floats, Integers, Timeline
from coinwatch.rules import DayMoveRule, HourMoveRule, MoveRule, RuleBook, Rules

Rule = Literal["move_1h", "move_24h"]
Severity = Literal["warning", "critical"]


@dataclass(frozen=True, slots=True)
class LastAlert:
    """The newest alert of a coin and rule.

    Attributes:
        ts: Time of the price that raised it.
        log_return: Of the move that it told of.
    """

    ts: datetime
    log_return: float


@dataclass(frozen=True, slots=True)
class Anomaly:
    """An abnormal move that is worth a message.

    Attributes:
        coin: CoinGecko id.
        rule: ``move_1h`` or ``move_24h``.
        ts: Time of the price that moved.
        price: That price.
        reference_price: The price that it is compared with.
        reference_ts: Time of that.
        hours: Between the two, as the rule counts them: what really was for ``move_1h``, always 24 for ``move_24h``.
        log_return: ln(price / reference price).
        change_pct: The same move in percent of the reference price.
        threshold_pct: The move in that direction from which on the rule is broken, likewise.
        usual_pct: The usual move of that many hours, plus or minus, in percent.
        severity: ``warning`` or ``critical``.
    """

    coin: str
    rule: Rule
    ts: datetime
    price: float
    reference_price: float
    reference_ts: datetime
    hours: float
    log_return: float
    change_pct: float
    threshold_pct: float
    usual_pct: float
    severity: Severity

    @property
    def times_usual(self) -> float:
        """How many times the usual move it is; infinite for a coin that has never moved."""
        return 100 * abs(self.log_return) / self.usual_pct if self.usual_pct else math.inf


@dataclass(frozen=True, slots=True)
class Detection:
    """What was decided.

    Attributes:
        anomalies: In the order of time.
        learning: For each coin whose usual move is not known well enough yet: moves seen.
    """

    anomalies: list[Anomaly]
    learning: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Move:
    """A row's move by one rule, judged."""

    row: int
    reference: int
    hours: float
    log_return: float
    threshold: float
    usual: float

    def is_worse(self, rule: MoveRule, last: LastAlert) -> bool:
        """Whether it is so much larger than the last one that it is worth a message at any time, up or down."""
        return abs(self.log_return) >= rule.worse_factor * abs(last.log_return)


def detect_anomalies(
    history: pd.DataFrame,
    since: Mapping[str, datetime],
    last_alerts: Mapping[tuple[str, str], LastAlert],
    rules: RuleBook,
) -> Detection:
    """Decide which live prices from some time on are worth a message.

    A move is judged by what was usual before it: by sigma as it was stored with the row before.

    Args:
        history: Columns coin, ts (datetime64, UTC), price (float64), source, sigma_variance and sigma_samples, sorted
            by coin and ts: each coin's rows from ``since`` on and those of 75 hours before, which a quiet time of 48
            hours may have to look back on.
        since: Coin → from when on prices may raise. Prices from history never do.
        last_alerts: (coin, rule) → the newest alert; prices up to its time do not raise again.
        rules: The rules of each coin.
    """
    columns = _Columns(history)
    anomalies: list[Anomaly] = []
    learning: dict[str, int] = {}
    for coin, numbers in history.groupby("coin", sort=False).indices.items():
        rows = np.asarray(numbers, dtype=np.int64)
        series = _Series(columns, str(coin), rows, since[str(coin)], rules.for_coin(str(coin)))
        samples = int(columns.samples[rows[-1]])
        if samples < series.rules.warm_up_samples:
            learning[series.coin] = samples
        anomalies += series.detect("move_1h", last_alerts.get((series.coin, "move_1h")))
        anomalies += series.detect("move_24h", last_alerts.get((series.coin, "move_24h")))
    return Detection(sorted(anomalies, key=lambda anomaly: (anomaly.ts, anomaly.coin, anomaly.rule)), learning)


class _Columns:
    """The columns of a history as arrays, read once for all coins."""

    def __init__(self, history: pd.DataFrame) -> None:
        self.timeline = Timeline(history)
        self.times: list[datetime] = pd.DatetimeIndex(history["ts"]).to_pydatetime().tolist()
        self.price: Floats = history["price"].to_numpy(np.float64)
        self.variance: Floats = history["sigma_variance"].to_numpy(np.float64)
        self.samples: Floats = history["sigma_samples"].to_numpy(np.float64)
        self.live = (history["source"] == "live").to_numpy()


@dataclass(frozen=True, slots=True)
class _Series:
    """The rows of one coin, and what its rules say of them."""

    columns: _Columns
    coin: str
    rows: Integers
    since: datetime
    rules: Rules

    def detect(self, name: Rule, last: LastAlert | None) -> list[Anomaly]:
        """Walk through the moves as they came, with the last alert in mind."""
        rule = self.rules.move_1h if name == "move_1h" else self.rules.move_24h
        found = []
        armed = last is None
        for move in self._moves(rule):
            ts = self.columns.times[move.row]
            if last is not None and ts <= last.ts:
                continue
            armed = armed or last is None or self._arms(rule, move, last, ts)
            # A worse move is told of itself; it does not end the quiet time for those after it.
            told = armed or last is None or move.is_worse(rule, last)
            raises = self.columns.live[move.row] and ts >= self.since
            if told and raises and abs(move.log_return) >= move.threshold:
                found.append(self._anomaly(name, move, ts))
                last, armed = LastAlert(ts, move.log_return), False
        return found

    @staticmethod
    def _arms(rule: HourMoveRule | DayMoveRule, move: _Move, last: LastAlert, ts: datetime) -> bool:
        """Whether the quiet time after an alert is over at a move, for it and for those after it."""
        if (ts - last.ts).total_seconds() / 3600 >= rule.quiet_hours:
            return True
        # A spike that turns back within hours is one incident; an hour's calm between two falls is no end of it either.
        if isinstance(rule, HourMoveRule):
            return False
        calm = abs(move.log_return) < rule.rearm_fraction * move.threshold
        return calm or (move.log_return < 0) != (last.log_return < 0)

    def _moves(self, rule: HourMoveRule | DayMoveRule) -> Iterator[_Move]:
        """The move of each row that has one: enough was learned before it, and there is a price to compare it with."""
        distance, tolerance = (HOUR, TOLERANCE_1H) if isinstance(rule, HourMoveRule) else (WINDOW, TOLERANCE_24H)
        timeline = self.columns.timeline
        # The first row has none before it in here.
        rows = self.rows[1:]
        references = timeline.nearest(rows, distance, tolerance)
        if isinstance(rule, HourMoveRule):
            late = (references < 0) & (timeline.hours_between(rows - 1, rows) <= rule.late_hours_max)
            references = np.where(late, rows - 1, references)
        usable = (references >= 0) & (self.columns.samples[rows - 1] >= self.rules.warm_up_samples)
        # A day is a day, wherever within the tolerance its reference is; "about an hour" may be up to three.
        is_hour = isinstance(rule, HourMoveRule)
        hours = timeline.hours_between(references, rows) if is_hour else np.full(len(rows), float(WINDOW // HOUR))
        for row, reference, between in zip(
            rows[usable].tolist(), references[usable].tolist(), hours[usable].tolist(), strict=True
        ):
            usual = math.sqrt(self.columns.variance[row - 1] * between)
            yield _Move(
                row=row,
                reference=reference,
                hours=between,
                log_return=math.log(self.columns.price[row] / self.columns.price[reference]),
                threshold=max(rule.sigmas * usual, rule.min_pct / 100),
                usual=usual,
            )

    def _anomaly(self, name: Rule, move: _Move, ts: datetime) -> Anomaly:
        price, reference = float(self.columns.price[move.row]), float(self.columns.price[move.reference])
        critical = abs(move.log_return) >= self.rules.critical_factor * move.threshold
        return Anomaly(
            coin=self.coin,
            rule=name,
            ts=ts,
            price=price,
            reference_price=reference,
            reference_ts=self.columns.times[move.reference],
            hours=move.hours,
            log_return=move.log_return,
            change_pct=100 * (price / reference - 1),
            threshold_pct=100 * math.expm1(math.copysign(move.threshold, move.log_return)),
            usual_pct=100 * move.usual,
            severity="critical" if critical else "warning",
        )
