"""The alerts that the rules raise on past values, by the functions that decide on live ones. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import pandas as pd

from coinwatch.alerts.bad_value import QuarantinedValue, decide_bad_value
from coinwatch.alerts.decide import Incident, Transition, decide_all
from coinwatch.alerts.observe import observe
from coinwatch.quarantine.screening import Value, screen
from coinwatch.rules import RuleBook
from coinwatch.statistics.rolling import compute_statistics, to_records


@dataclass(frozen=True, slots=True)
class Simulation:
    """The result of one set of rules on past values.

    Attributes:
        history: The statistics of the accepted prices, as `compute_statistics` returns them.
        transitions: In the order of time.
    """

    history: pd.DataFrame
    transitions: list[Transition]

    @property
    def alerts(self) -> list[Transition]:
        """The transitions that are alerts: firing and worse."""
        return [each for each in self.transitions if each.incident.is_open]


def simulate(values: Sequence[Value], coin: str, currency: str, rules: RuleBook) -> Simulation:
    """Decide on values of one coin, in the order of time, as if each had been polled live at its time."""
    accepted, transitions = _screen(values, coin, currency, rules)
    if not accepted:
        return Simulation(pd.DataFrame(columns=["ts"]), transitions)
    prices = pd.DataFrame(
        {
            "coin": coin,
            "ts": pd.to_datetime([value.ts for value in accepted], utc=True),
            "price": [float(value.price or math.nan) for value in accepted],
            "source": "live",
            "sigma_variance": math.nan,
            "sigma_samples": math.nan,
            "unchanged_since": pd.Series(pd.NaT, range(len(accepted)), "datetime64[us, UTC]"),
            "unchanged_polls": math.nan,
        }
    )
    statistics = compute_statistics(prices, {coin: accepted[0].ts}, rules)
    own = rules.for_coin(coin)
    observations = [observe({**row, "currency": currency, "age_minutes": None}, own) for row in to_records(statistics)]
    transitions += decide_all({}, observations, own)
    return Simulation(statistics, sorted(transitions, key=lambda each: (each.ts, each.note)))


def _screen(values: Sequence[Value], coin: str, currency: str, rules: RuleBook) -> tuple[list[Value], list[Transition]]:
    """Return the values that are prices, and the transitions that quarantined values cause."""
    accepted: list[Value] = []
    transitions: list[Transition] = []
    quarantined: list[QuarantinedValue] = []
    last: Incident | None = None
    for decision in screen(values, rules.for_coin(coin).bad_value):
        value = decision.value
        newest: tuple[datetime, float] | None = None
        if decision.reason:
            text = "no number" if value.price is None else f"{value.price:f}"
            quarantined.append(QuarantinedValue(value.ts, text, decision.reason))
        else:
            accepted += [*decision.released, value]
            newest = (value.ts, float(value.price or math.nan))
            released = {each.ts for each in decision.released}
            quarantined = [
                replace(each, is_confirmed=True, is_decided=True) if each.ts in released else each
                for each in quarantined
            ]
        for transition in decide_bad_value(last, coin, currency, quarantined, newest, value.ts):
            transitions.append(transition)
            last = transition.incident
        if last is not None and not last.is_open:
            quarantined = []
    return accepted, transitions
