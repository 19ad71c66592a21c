"""The rule bad_value: which values are quarantined and not stored as prices. Pure.

A live value too far from the last accepted price is quarantined. If later polls in a row agree with it, they are all
accepted together.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Literal

from coinwatch.rules import BadValueRule

Verdict = Literal["accepted", "held"]


@dataclass(frozen=True, slots=True)
class Value:
    """The value that one poll has for a coin.

    Attributes:
        ts: As-of time of the poll.
        price: None if it is not a positive number.
    """

    ts: datetime
    price: Decimal | None


@dataclass(frozen=True, slots=True)
class Standing:
    """What screening remembers between two polls of a coin.

    Attributes:
        accepted: The newest accepted price; None before the first.
        held: The values quarantined since then, oldest first; the price of a rejected one is None.
    """

    accepted: Value | None = None
    held: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision on one value.

    Attributes:
        value: The value.
        verdict: ``held`` if it is quarantined.
        reason: Why it is quarantined; empty if it is accepted.
        released: The quarantined values that are accepted with it because they agree, oldest first.
    """

    value: Value
    verdict: Verdict
    reason: str = ""
    released: tuple[Value, ...] = ()


def screen(standing: Standing, values: Iterable[Value], rule: BadValueRule) -> tuple[list[Decision], Standing]:
    """Decide on live values of one coin, given in the order of time.

    Returns:
        A decision for each value, and what to remember for the next.
    """
    decisions = []
    for value in values:
        decision = _decide(standing, value, rule)
        decisions.append(decision)
        if decision.verdict == "accepted":
            standing = Standing(accepted=value)
        else:
            standing = replace(standing, held=(*standing.held, value))
    return decisions, standing


def _decide(standing: Standing, value: Value, rule: BadValueRule) -> Decision:
    if value.price is None:
        return Decision(value, "held", "it is not a positive number")
    last = standing.accepted
    if last is None or last.price is None or _step_pct(last.price, value.price) <= Decimal(str(rule.max_step_pct)):
        return Decision(value, "accepted")
    agreeing = _agreeing(standing.held, value.price, rule)
    if len(agreeing) + 1 >= rule.confirm_polls:
        return Decision(value, "accepted", released=agreeing)
    change = 100 * (value.price / last.price - 1)
    reason = f"it is {abs(change):.1f} % {'above' if change > 0 else 'below'} the price before, {last.price:f}"
    return Decision(value, "held", reason)


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


def outliers(prices: Sequence[Decimal], fixed: Sequence[bool], rule: BadValueRule) -> list[int]:
    """Return the indexes of the points of a history that are too far from the point before and the point after.

    Args:
        prices: Of one coin in the order of time, with the stored prices around them; the first and the last are never
            outliers.
        fixed: Which of them are stored already.
        rule: How far is too far.
    """
    most = Decimal(str(rule.max_step_pct))
    return [
        index
        for index in range(1, len(prices) - 1)
        if not fixed[index]
        and _step_pct(prices[index - 1], prices[index]) > most
        and _step_pct(prices[index + 1], prices[index]) > most
    ]
