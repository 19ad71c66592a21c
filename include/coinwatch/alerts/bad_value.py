"""The incident of a coin's quarantined values, from the first one to the next accepted price. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from coinwatch.alerts.decide import Incident, Note, Transition


@dataclass(frozen=True, slots=True)
class QuarantinedValue:
    """A quarantined value of a live poll.

    Attributes:
        is_confirmed: Whether later polls confirmed it.
        is_decided: Whether it was released or rejected.
    """

    ts: datetime
    value: str
    reason: str
    is_confirmed: bool = False
    is_decided: bool = False


def decide_bad_value(
    last: Incident | None,
    coin: str,
    currency: str,
    quarantined: Sequence[QuarantinedValue],
    accepted: tuple[datetime, float] | None,
    now: datetime,
) -> list[Transition]:
    """Return what the quarantined values of a coin change.

    Args:
        last: The coin's newest incident of bad values.
        coin: CoinGecko id.
        currency: Quote currency.
        quarantined: Those of the open incident, or those since the last one; ascending.
        accepted: Time and price of the newest accepted live price; None if there is none.
        now: The present, which is the time of an operator's decision.
    """
    if not quarantined:
        return []
    transitions: list[Transition] = []
    note: Note
    if last is not None and last.is_open:
        incident = last
    else:
        first = quarantined[0]
        incident = Incident(coin, currency, "bad_value", "firing", first.ts, first.ts, first.ts)
        reason = f"value {first.value} quarantined: {first.reason}"
        transitions.append(Transition(incident, "bad_value", price=_number(first.value), reason=reason))
    if accepted is not None and accepted[0] > quarantined[-1].ts:
        ended = replace(incident, state="resolved", changed_at=accepted[0])
        if any(value.is_confirmed for value in quarantined):
            note, reason = "level_confirmed", "polls in a row agree on it"
        else:
            note, reason = "bad_value", "in line with the prices before"
        transitions.append(Transition(ended, note, price=accepted[1], reason=reason))
    elif all(value.is_decided for value in quarantined):
        ended = replace(incident, state="resolved", changed_at=now)
        reason = "an operator released or rejected the quarantined values"
        transitions.append(Transition(ended, "bad_value", reason=reason))
    return transitions


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
