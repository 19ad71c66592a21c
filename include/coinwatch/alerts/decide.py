"""The life of an incident: what begins, gets worse and ends it. Pure.

An incident belongs to a coin and a rule. A decision needs no more than the newest incidents and a new observation, so
it is the same hour by hour and over a whole history at once. Both move rules are about the same price: while an
incident of one is open, the other one opens none.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from coinwatch.alerts.observe import Move, Observation
from coinwatch.rules import Rules
from coinwatch.statistics.sigma import threshold
from coinwatch.times import compact_time, hours_from

RuleName = Literal["move_1h", "move_24h", "limit_1h", "limit_24h", "stale", "bad_value"]
"""What opens an incident."""

Note = Literal[RuleName, "spike_reverted", "level_confirmed"]
"""What a transition is about: the rule, or what ended its incident."""

State = Literal["firing", "worse", "resolved", "corrected"]
"""``corrected`` ends an incident that was a spike."""

OPEN = ("firing", "worse")
"""The states of an open incident."""

Severity = Literal["warning", "critical"]


@dataclass(frozen=True, slots=True)
class Incident:
    """What is remembered of an incident, open or ended.

    Attributes:
        opened_at: Time of the price that opened it.
        changed_at: Time of the price of its newest transition.
        notified_at: Time of the price of its newest firing or worse transition.
        notified_move: The largest move notified so far, as a log return; 0 if it is about no move.
        reference_price: Price that it moved away from; None if it is about no move.
    """

    coin: str
    currency: str
    rule: RuleName
    state: State
    opened_at: datetime
    changed_at: datetime
    notified_at: datetime
    notified_move: float = 0.0
    reference_price: float | None = None

    @property
    def id(self) -> str:
        """The same incident has the same id, whenever it is found."""
        return f"{self.rule}-{self.coin}-{self.currency}-{compact_time(self.opened_at)}"

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.state in OPEN


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of an incident, with the facts of its notification.

    Attributes:
        incident: As it is after the change.
        severity: ``critical`` from ``critical_factor`` times the threshold on.
        price: The price now, or the quarantined value; None if it is no number.
        change_pct: The move in percent of the price before it; None if it is about no move.
        threshold_pct: The move in that direction that breaks the rule, in percent.
        typical_pct: The typical move of that many hours, plus or minus, in percent.
        hours: Of the move, as the rule counts them, or since the incident was opened.
        reason: What happened, in words, if it is about no move.
    """

    incident: Incident
    note: Note
    severity: Severity = "warning"
    price: float | None = None
    change_pct: float | None = None
    threshold_pct: float | None = None
    typical_pct: float | None = None
    hours: float | None = None
    reason: str = ""

    @property
    def ts(self) -> datetime:
        """Time of the price that caused it."""
        return self.incident.changed_at

    @property
    def id(self) -> str:
        """The same transition has the same id, whenever it is decided."""
        if self.incident.state == "firing":
            return self.incident.id
        return f"{self.incident.id}-{self.incident.state}-{compact_time(self.ts)}"

    @property
    def times_typical(self) -> float | None:
        """How many times the typical move it is; None if that is unknown."""
        if not self.typical_pct or self.change_pct is None:
            return None
        return 100 * abs(math.log1p(self.change_pct / 100)) / self.typical_pct


Memory = Mapping[RuleName, Incident]
"""The newest incident of each rule of one coin."""


def decide_all(memory: Memory, observations: Iterable[Observation], rules: Rules) -> list[Transition]:
    """Return what new live prices of one coin change, given in the order of time.

    A price that is not newer than an incident's newest transition changes nothing of that incident.
    """
    known: dict[RuleName, Incident] = dict(memory)
    transitions: list[Transition] = []
    for seen in observations:
        found = [
            *_decide_moves(known, seen, rules),
            *_decide_limit("limit_1h", known, seen, rules),
            *_decide_limit("limit_24h", known, seen, rules),
            *_decide_stale(known.get("stale"), seen),
        ]
        known |= {transition.incident.rule: transition.incident for transition in found}
        transitions += found
    return transitions


def _decide_moves(memory: Memory, seen: Observation, rules: Rules) -> list[Transition]:
    last = [memory[rule] for rule in ("move_1h", "move_24h") if rule in memory]
    if any(seen.ts <= incident.changed_at for incident in last):
        return []
    incident = next((incident for incident in last if incident.is_open), None)
    if incident is None:
        return _begin(memory, seen, rules)
    end = _end_of_hour(incident, seen, rules) if incident.rule == "move_1h" else _end_of_day(incident, seen, rules)
    if end is None:
        return _worsen(incident, seen, rules)
    # The way back from a move is no new incident; what goes beyond its beginning is.
    if incident.rule == "move_1h" and seen.move_1h is not None:
        is_way_back = _is_same_way(incident, -seen.move_1h.log_return)
        if is_way_back and -_away(incident, seen.price) < seen.move_1h.threshold:
            return [end]
    return [end, *_begin({**memory, incident.rule: end.incident}, seen, rules)]


def _begin(memory: Memory, seen: Observation, rules: Rules) -> list[Transition]:
    """Return the beginning of an incident of the first move that is abnormal and new."""
    for move in (seen.move_1h, seen.move_24h):
        if move is None or not move.is_abnormal:
            continue
        if move.rule == "move_1h" and _is_quiet(memory.get("move_1h"), move, seen, rules):
            continue
        if move.rule == "move_24h" and _is_echo(memory.get("move_1h"), move, seen, rules):
            continue
        incident = _open(seen, move.rule, move.log_return, move.reference_price)
        return [_of_move(incident, move, seen, rules)]
    return []


def _open(seen: Observation, rule: RuleName, move: float = 0.0, reference: float | None = None) -> Incident:
    return Incident(seen.coin, seen.currency, rule, "firing", seen.ts, seen.ts, seen.ts, move, reference)


def _is_quiet(last: Incident | None, hour: Move, seen: Observation, rules: Rules) -> bool:
    """Return whether a move follows an ended incident so soon that it must be much worse to be new."""
    if last is None or hours_from(last.notified_at, seen.ts) >= rules.move_1h.quiet_hours:
        return False
    return abs(hour.log_return) < rules.move_1h.worse_factor * abs(last.notified_move)


def _is_echo(last: Incident | None, day: Move, seen: Observation, rules: Rules) -> bool:
    """Return whether a day's move shows only that the price was elsewhere a day ago and came back since.

    Operators were notified of both. Without this, a spike would raise an alert again a day later, the other way round.
    """
    if last is None or last.is_open or last.reference_price is None or day.reference_ts is None:
        return False
    # Within the quiet time nothing ends an incident but a price that comes back.
    came_back = last.state == "corrected" or hours_from(last.notified_at, last.changed_at) < rules.move_1h.quiet_hours
    if not came_back or not last.opened_at <= day.reference_ts < last.changed_at:
        return False
    return abs(math.log(seen.price / last.reference_price)) < day.threshold


def _end_of_hour(incident: Incident, seen: Observation, rules: Rules) -> Transition | None:
    if seen.reverts == incident.opened_at == incident.notified_at:
        return _of_end(incident, seen, "corrected", "spike_reverted")
    if _away(incident, seen.price) <= (1 - rules.move_1h.revert_fraction) * abs(incident.notified_move):
        return _of_end(incident, seen, "resolved", incident.rule)
    if hours_from(incident.notified_at, seen.ts) < rules.move_1h.quiet_hours:
        return None
    if seen.move_1h is not None and seen.move_1h.is_abnormal:
        lasts = _is_same_way(incident, seen.move_1h.log_return)
    else:
        lasts = _day_lasts(incident, seen, rules)
    return None if lasts else _of_end(incident, seen, "resolved", incident.rule)


def _end_of_day(incident: Incident, seen: Observation, rules: Rules) -> Transition | None:
    if _day_lasts(incident, seen, rules):
        return None
    # An unknown move ends it only after the quiet time.
    if seen.move_24h is None and hours_from(incident.notified_at, seen.ts) < rules.move_24h.quiet_hours:
        return None
    return _of_end(incident, seen, "resolved", incident.rule)


def _day_lasts(incident: Incident, seen: Observation, rules: Rules) -> bool:
    """Return whether the day's move goes the incident's way and is not small again."""
    day = seen.move_24h
    if day is None or not _is_same_way(incident, day.log_return):
        return False
    return abs(day.log_return) >= rules.move_24h.rearm_fraction * day.threshold


def _worsen(incident: Incident, seen: Observation, rules: Rules) -> list[Transition]:
    """Return that an open incident is much worse, or that it goes on after the quiet time."""
    away, notified = _away(incident, seen.price), abs(incident.notified_move)
    if incident.rule == "move_1h" and seen.move_1h is not None and away >= rules.move_1h.worse_factor * notified:
        return [_of_worse(incident, _since_beginning(incident, seen.move_1h, seen, rules), away, seen, rules)]
    for move, rule in ((seen.move_1h, rules.move_1h), (seen.move_24h, rules.move_24h)):
        if move is None or not move.is_abnormal or not _is_same_way(incident, move.log_return):
            continue
        if move.rule == "move_24h" and incident.rule == "move_1h":
            continue
        is_quiet = hours_from(incident.notified_at, seen.ts) < rule.quiet_hours
        if is_quiet and abs(move.log_return) < rule.worse_factor * notified:
            continue
        size = abs(move.log_return)
        return [_of_worse(incident, move, max(away, size) if move.rule == "move_1h" else size, seen, rules)]
    return []


def _since_beginning(incident: Incident, hour: Move, seen: Observation, rules: Rules) -> Move:
    """Return the move from where an incident began: two falls in a row are one fall."""
    # The move that opened it took about an hour.
    hours = max(hour.hours, hours_from(incident.opened_at, seen.ts) + 1)
    typical = hour.typical * math.sqrt(hours / hour.hours)
    return replace(
        hour,
        reference_price=incident.reference_price or hour.reference_price,
        reference_ts=None,
        log_return=math.copysign(_away(incident, seen.price), incident.notified_move),
        hours=hours,
        typical=typical,
        threshold=threshold(rules.move_1h, typical),
    )


def _of_worse(incident: Incident, move: Move, size: float, seen: Observation, rules: Rules) -> Transition:
    # One more abnormal hour may be smaller than the move notified before it; what is worse next is worse than both.
    largest = math.copysign(max(size, abs(incident.notified_move)), incident.notified_move)
    return _of_move(_worse(incident, seen, largest), move, seen, rules)


def _worse(incident: Incident, seen: Observation, move: float) -> Incident:
    return replace(incident, state="worse", changed_at=seen.ts, notified_at=seen.ts, notified_move=move)


def _of_move(incident: Incident, move: Move, seen: Observation, rules: Rules) -> Transition:
    is_critical = abs(move.log_return) >= rules.critical_factor * move.threshold
    return Transition(
        incident=incident,
        note=incident.rule,
        severity="critical" if is_critical else "warning",
        price=seen.price,
        change_pct=100 * (seen.price / move.reference_price - 1),
        threshold_pct=100 * math.expm1(math.copysign(move.threshold, move.log_return)),
        typical_pct=100 * move.typical,
        hours=move.hours,
    )


def _of_end(incident: Incident, seen: Observation, state: Literal["resolved", "corrected"], note: Note) -> Transition:
    reference = incident.reference_price
    return Transition(
        incident=replace(incident, state=state, changed_at=seen.ts),
        note=note,
        price=seen.price,
        change_pct=None if reference is None else 100 * (seen.price / reference - 1),
        hours=hours_from(incident.opened_at, seen.ts),
    )


def _away(incident: Incident, price: float) -> float:
    """Return how far a price is from where the incident's move began, in its direction, as a log return."""
    if incident.reference_price is None:
        return 0.0
    return math.copysign(1.0, incident.notified_move) * math.log(price / incident.reference_price)


def _is_same_way(incident: Incident, log_return: float) -> bool:
    return (incident.notified_move < 0) == (log_return < 0)


def _decide_limit(
    rule: Literal["limit_1h", "limit_24h"], memory: Memory, seen: Observation, rules: Rules
) -> list[Transition]:
    limits, last = rules.limits, memory.get(rule)
    if rule == "limit_1h":
        change_pct, limit_pct, hours = seen.change_1h_pct, limits.limit_1h_pct, 1.0
    else:
        change_pct, limit_pct, hours = seen.change_24h_pct, limits.limit_24h_pct, 24.0
    if last is not None and seen.ts <= last.changed_at:
        return []
    incident = last if last is not None and last.is_open else None
    ends = [] if incident is None else [_of_end(incident, seen, "resolved", rule)]
    if limit_pct is None:
        return ends
    if change_pct is None:
        return []
    if abs(change_pct) < limit_pct:
        return ends if abs(change_pct) < limits.rearm_fraction * limit_pct else []
    log_return, reference = math.log1p(change_pct / 100), seen.price / (1 + change_pct / 100)
    if incident is None or not _is_same_way(incident, log_return):
        # A change from one limit to the opposite one ends an incident and begins another.
        incident = _open(seen, rule, log_return, reference)
    elif abs(log_return) >= limits.worse_factor * abs(incident.notified_move):
        incident, ends = replace(_worse(incident, seen, log_return), reference_price=reference), []
    else:
        return []
    threshold_pct = math.copysign(limit_pct, change_pct)
    return [*ends, Transition(incident, rule, "warning", seen.price, change_pct, threshold_pct, hours=hours)]


def _decide_stale(last: Incident | None, seen: Observation) -> list[Transition]:
    if last is not None and seen.ts <= last.changed_at:
        return []
    if last is None or not last.is_open:
        opened = Transition(_open(seen, "stale"), "stale", price=seen.price, reason=seen.stale)
        return [opened] if seen.stale else []
    ended = replace(last, state="resolved", changed_at=seen.ts)
    return [] if seen.stale else [Transition(ended, "stale", price=seen.price, reason="the price moves again")]
