"""A live price with its moves, as its statistics show them, and whether it is stale. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from coinwatch.alerts.stale import stale_reason
from coinwatch.rules import MoveRule, Rules
from coinwatch.statistics.sigma import threshold
from coinwatch.times import hours_from


@dataclass(frozen=True, slots=True)
class Move:
    """A price against an earlier one, judged by the typical move before it.

    Attributes:
        reference_ts: Time of the reference price; None if it is not remembered.
        hours: Between the two, as the rule counts them: as measured for ``move_1h``, always 24 for ``move_24h``.
        log_return: ln(price / reference price).
        threshold: The size from which it is abnormal, as a log return.
        typical: The typical move of that many hours, plus or minus, as a log return.
    """

    rule: Literal["move_1h", "move_24h"]
    reference_price: float
    reference_ts: datetime | None
    hours: float
    log_return: float
    threshold: float
    typical: float

    @property
    def is_abnormal(self) -> bool:
        """Whether it breaks its rule."""
        return abs(self.log_return) >= self.threshold


@dataclass(frozen=True, slots=True)
class Observation:
    """A live price.

    Attributes:
        ts: As-of time of the poll.
        move_1h: Its move of about an hour; None without a reference price or during the warm-up, as ``move_24h``.
        change_1h_pct: Change in an hour, also during the warm-up; None if unknown, as ``change_24h_pct``.
        reverts: Time of the price before, if that was a spike which this price takes back.
        stale: Why the price is stale, in words; empty if it is not.
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


def observe(row: Mapping[str, Any], rules: Rules) -> Observation:
    """Observe a live price.

    Args:
        row: Its row of ``price_statistics``, and ``age_minutes``: how old the price was at the poll, None if unknown.
        rules: Of its coin.
    """
    return Observation(
        coin=row["coin"],
        currency=row["currency"],
        ts=row["ts"],
        price=float(row["price"]),
        move_1h=_move("move_1h", row, rules.move_1h),
        move_24h=_move("move_24h", row, rules.move_24h),
        change_1h_pct=row["change_1h_pct"],
        change_24h_pct=row["change_24h_pct"],
        reverts=row["reverts_ts"],
        stale=stale_reason(row, rules.stale),
    )


def _move(name: Literal["move_1h", "move_24h"], row: Mapping[str, Any], rule: MoveRule) -> Move | None:
    span = name.removeprefix("move")
    reference_ts, reference_price = row[f"reference{span}_ts"], row[f"reference{span}_price"]
    if reference_ts is None or row["prior_variance"] is None:
        return None
    hours = hours_from(reference_ts, row["ts"]) if name == "move_1h" else 24.0
    typical = math.sqrt(row["prior_variance"] * hours)
    log_return = math.log(float(row["price"]) / reference_price)
    return Move(name, reference_price, reference_ts, hours, log_return, threshold(rule, typical), typical)
