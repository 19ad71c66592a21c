"""What would have been told: past values, one after the other, through the very functions that decide of live ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from coinwatch.alerts.decide import HeldValue, Incident, Transition, decide_all, decide_bad_values
from coinwatch.alerts.observe import observe
from coinwatch.quarantine.screening import Standing, Value, screen
from coinwatch.rules import RuleBook
from coinwatch.statistics.rolling import compute_statistics


@dataclass(frozen=True, slots=True)
class Simulation:
    """What came of it.

    Attributes:
        history: The prices that were accepted: columns ts (datetime64, UTC), price and sigma_variance (float64; what
            was learned before the row, NaN unknown).
        transitions: All that would have been told, in the order of time.
    """

    history: pd.DataFrame
    transitions: list[Transition]


def simulate(values: Sequence[Value], coin: str, currency: str, rules: RuleBook) -> Simulation:
    """Let the rules see values as if each had been pulled live at its time.

    Args:
        values: Of one coin, in the order of time, no time twice.
        coin: CoinGecko id, which may have rules of its own.
        currency: Quote currency.
        rules: The rules.
    """
    accepted, turns = _screen(values, coin, currency, rules)
    if not accepted:
        return Simulation(pd.DataFrame(columns=["ts", "price", "sigma_variance"]), turns)
    frame = pd.DataFrame(
        {
            "coin": coin,
            "ts": pd.to_datetime([value.ts for value in accepted], utc=True),
            "price": [float(value.price or math.nan) for value in accepted],
            "sigma_variance": math.nan,
            "sigma_samples": math.nan,
        }
    )
    since = {coin: accepted[0].ts}
    history = compute_statistics(frame, since, rules).assign(source="live", age_minutes=math.nan)
    for _, seen in observe(history, currency, since, rules):
        turns += decide_all({}, seen, rules.for_coin(coin))
    before = (
        history["sigma_variance"]
        .shift()
        .where(history["sigma_samples"].shift() >= rules.for_coin(coin).warm_up_samples)
    )
    known = history[["ts", "price"]].assign(sigma_variance=before)
    return Simulation(known, sorted(turns, key=lambda turn: (turn.ts, turn.note)))


def _screen(values: Sequence[Value], coin: str, currency: str, rules: RuleBook) -> tuple[list[Value], list[Transition]]:
    """Which values are prices, in the order of time, and what is told of the others."""
    decisions, _ = screen(Standing(), values, rules.for_coin(coin).bad_value)
    accepted: list[Value] = []
    turns: list[Transition] = []
    held: list[HeldValue] = []
    last: Incident | None = None
    for decision in decisions:
        value = decision.value
        newest: tuple[datetime, float] | None = None
        if decision.verdict == "held":
            text = "no number" if value.price is None else f"{value.price:f}"
            held.append(HeldValue(value.ts, text, decision.reason))
        else:
            accepted += [*decision.released, value]
            newest = (value.ts, float(value.price or math.nan))
            released = {each.ts for each in decision.released}
            held = [
                HeldValue(each.ts, each.value, each.reason, value.ts, is_decided=True) if each.ts in released else each
                for each in held
            ]
        if not held:
            continue
        for turn in decide_bad_values(last, coin, currency, held, newest, value.ts):
            turns.append(turn)
            last = turn.incident
        if last is not None and not last.is_open:
            held = []
    return accepted, turns
