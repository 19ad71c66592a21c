"""Which values are no prices: the rule bad_value. Pure.

A live value that lies too far from the last price that was accepted is held back: it is not stored as a price, and
nothing is computed from it. If it was right after all, the pulls after it say the same, and together they are accepted.
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
    """What one pull says of a coin.

    Attributes:
        ts: As-of time of the pull.
        price: None if it is no positive number.
    """

    ts: datetime
    price: Decimal | None


@dataclass(frozen=True, slots=True)
class Standing:
    """What has to be remembered between two pulls of a coin.

    Attributes:
        accepted: The newest price that was accepted; none before the first.
        held: The values held back since then, oldest first; those that an operator has rejected are not among them.
    """

    accepted: Value | None = None
    held: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to become of a value.

    Attributes:
        value: The value.
        verdict: Whether it is a price.
        reason: Why it is held back, in words; empty if it is not.
        released: The values held back before it that are accepted with it, because they agree: oldest first.
    """

    value: Value
    verdict: Verdict
    reason: str = ""
    released: tuple[Value, ...] = ()


def screen(standing: Standing, values: Iterable[Value], rule: BadValueRule) -> tuple[list[Decision], Standing]:
    """Decide on the live values of one coin, in the order of time.

    Returns:
        A decision for each, and what has to be remembered then.
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
        return Decision(value, "held", "it is no positive number")
    last = standing.accepted
    if last is None or last.price is None or step_pct(last.price, value.price) <= Decimal(str(rule.max_step_pct)):
        return Decision(value, "accepted")
    agreeing = _agreeing(standing.held, value, rule)
    if len(agreeing) + 1 >= rule.confirm_pulls:
        return Decision(value, "accepted", released=agreeing)
    change = 100 * (value.price / last.price - 1)
    reason = f"it is {abs(change):.1f} % {'above' if change > 0 else 'below'} the price before, {last.price:f}"
    return Decision(value, "held", reason)


def step_pct(before: Decimal, after: Decimal) -> Decimal:
    """The size of a step in percent of the price before it."""
    return abs(100 * (after / before - 1))


def _agreeing(held: Sequence[Value], value: Value, rule: BadValueRule) -> tuple[Value, ...]:
    """The values held right before this one that agree with it and with each other."""
    agreeing: list[Value] = []
    low = high = value.price
    for each in reversed(held):
        if each.price is None or low is None or high is None:
            break
        low, high = min(low, each.price), max(high, each.price)
        if step_pct(low, high) > Decimal(str(rule.confirm_pct)):
            break
        agreeing.insert(0, each)
    return tuple(agreeing)


def outliers(prices: Sequence[Decimal], fixed: Sequence[bool], rule: BadValueRule) -> list[int]:
    """The points of a history that stand alone: too far from the one before and from the one after.

    Args:
        prices: Of one coin, in the order of time, with what is stored around them.
        fixed: Which of them are not in question; the first and the last of all are not either.
        rule: How far is too far.

    Returns:
        Their numbers.
    """
    most = Decimal(str(rule.max_step_pct))
    return [
        number
        for number in range(1, len(prices) - 1)
        if not fixed[number]
        and step_pct(prices[number - 1], prices[number]) > most
        and step_pct(prices[number + 1], prices[number]) > most
    ]
