"""The rule bad_value: which values are quarantined and not stored as prices. Pure.

A live value too far from the last accepted price is quarantined. If later polls in a row agree with it, they are all
accepted together.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from coinwatch.rules import BadValueRule


@dataclass(frozen=True, slots=True)
class Value:
    """The value that one poll has for a coin at its as-of time; its price is None if it is not a positive number."""

    ts: datetime
    price: Decimal | None


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision on one value.

    Attributes:
        reason: Why it is quarantined; empty if it is accepted.
        released: The quarantined values that are accepted with it because they agree, oldest first.
    """

    value: Value
    reason: str = ""
    released: tuple[Value, ...] = ()


def screen(
    values: Iterable[Value], rule: BadValueRule, accepted: Value | None = None, held: Sequence[Value] = ()
) -> list[Decision]:
    """Decide on live values of one coin.

    Args:
        values: In the order of time.
        rule: The coin's rule.
        accepted: The newest accepted price before them.
        held: The values quarantined since then, oldest first; the price of a rejected one is None.
    """
    decisions = []
    held = list(held)
    for value in values:
        decision = _decide(value, rule, accepted, held)
        decisions.append(decision)
        if decision.reason:
            held.append(value)
        else:
            accepted, held = value, []
    return decisions


def _decide(value: Value, rule: BadValueRule, accepted: Value | None, held: Sequence[Value]) -> Decision:
    if value.price is None:
        return Decision(value, "it is not a positive number")
    before = accepted.price if accepted else None
    if before is None or _step_pct(before, value.price) <= Decimal(str(rule.max_step_pct)):
        return Decision(value)
    agreeing = _agreeing(held, value.price, rule)
    if len(agreeing) + 1 >= rule.confirm_polls:
        return Decision(value, released=agreeing)
    change = 100 * (value.price / before - 1)
    reason = f"it is {abs(change):.1f} % {'above' if change > 0 else 'below'} the price before, {before:f}"
    return Decision(value, reason)


def _step_pct(before: Decimal, after: Decimal) -> Decimal:
    return abs(100 * (after / before - 1))


def _agreeing(held: Sequence[Value], price: Decimal, rule: BadValueRule) -> tuple[Value, ...]:
    """Return the newest quarantined values, without a break, that agree with a price and with each other."""
    agreeing: list[Value] = []
    low = high = price
    for each in reversed(held):
        if each.price is None:
            break
        low, high = min(low, each.price), max(high, each.price)
        if _step_pct(low, high) > Decimal(str(rule.confirm_pct)):
            break
        agreeing.insert(0, each)
    return tuple(agreeing)


def outliers(prices: Mapping[datetime, Decimal], rule: BadValueRule) -> set[datetime]:
    """Return the times of history prices that are too far from the price before and the price after.

    The first and the last one never are.
    """
    most = Decimal(str(rule.max_step_pct))
    times = sorted(prices)
    return {
        ts
        for before, ts, after in zip(times, times[1:], times[2:], strict=False)
        if min(_step_pct(prices[before], prices[ts]), _step_pct(prices[after], prices[ts])) > most
    }
