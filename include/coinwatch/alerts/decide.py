"""The life of an alert: what is told when something begins, gets worse, and is over. Pure.

An incident belongs to a coin and a rule. A transition is a change of it that is worth a message: one when it begins,
one when it gets materially worse, one when it is over. A decision needs no more than the incident as it was stored and
the new observation, so it is the same hour by hour and over a whole history at once.

Both move rules tell of one thing, the price: while an incident of one of them is open, the other one opens none.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from coinwatch.alerts.observe import Move, Observation
from coinwatch.rules import LimitRules, Rules
from coinwatch.times import compact_time

RuleName = Literal["move_1h", "move_24h", "limit_1h", "limit_24h", "stale", "bad_value"]
"""What opens an incident."""

Note = Literal[RuleName, "spike_reverted", "level_confirmed"]
"""What a transition is about: the rule, or the finding that ended its incident."""

State = Literal["firing", "worse", "resolved", "corrected"]
"""The first two are open; ``corrected`` is the end of what never really happened."""

Severity = Literal["warning", "critical"]


@dataclass(frozen=True, slots=True)
class Incident:
    """What has to be remembered of an incident, open or over.

    Attributes:
        coin: CoinGecko id.
        currency: Quote currency.
        rule: What opened it.
        state: Of its newest transition.
        opened_at: Time of the price that opened it.
        changed_at: Time of the price of its newest transition.
        told_at: Time of the price of the newest message that it began or got worse.
        told: The furthest that was told of so far, as a log return; 0 where no move is told.
        reference_price: Price that it moved away from; none where no move is told.
    """

    coin: str
    currency: str
    rule: RuleName
    state: State
    opened_at: datetime
    changed_at: datetime
    told_at: datetime
    told: float = 0.0
    reference_price: float | None = None

    @property
    def id(self) -> str:
        """The same finding has the same id, whenever it is found."""
        return f"{self.rule}-{self.coin}-{self.currency}-{compact_time(self.opened_at)}"

    @property
    def is_open(self) -> bool:
        """Whether it is not over."""
        return self.state in ("firing", "worse")


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of an incident, and all that a message about it needs.

    Attributes:
        incident: As it is now.
        note: What it is about: the rule, or what ended it.
        severity: ``critical`` from ``critical_factor`` times the threshold on.
        price: The price now, or the value that was held back; none if there was no number.
        change_pct: The move in percent of the reference price; none where no move is told.
        threshold_pct: The move in that direction from which on the rule is broken, likewise.
        usual_pct: The usual move of that many hours, plus or minus, in percent; none if nothing was learned yet.
        hours: That the move took, as the rule counts them; none where no move is told.
        reference_price: The price that it is compared with; none where no move is told.
        reference_ts: Time of that; none where it is not remembered.
        reason: What was seen, in words, where it is no move.
    """

    incident: Incident
    note: Note
    severity: Severity = "warning"
    price: float | None = None
    change_pct: float | None = None
    threshold_pct: float | None = None
    usual_pct: float | None = None
    hours: float | None = None
    reference_price: float | None = None
    reference_ts: datetime | None = None
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
    def times_usual(self) -> float | None:
        """How many times the usual move it is; none where that is not known."""
        if not self.usual_pct or self.change_pct is None:
            return None
        return 100 * abs(math.log1p(self.change_pct / 100)) / self.usual_pct


Memory = Mapping[RuleName, Incident]
"""The newest incident of each rule of one coin."""


def decide(memory: Memory, seen: Observation, rules: Rules) -> list[Transition]:
    """What a new live price changes.

    Args:
        memory: The newest incident of each rule, open or over.
        seen: The new price with its moves; older than the newest transition of a rule, it changes nothing of that.
        rules: Of this coin.
    """
    return [
        *_decide_moves(memory, seen, rules),
        *_decide_limit(memory, "limit_1h", seen.change_1h_pct, rules.limits.limit_1h_pct, seen, rules.limits),
        *_decide_limit(memory, "limit_24h", seen.change_24h_pct, rules.limits.limit_24h_pct, seen, rules.limits),
        *_decide_stale(memory, seen),
    ]


def decide_all(memory: Memory, seen: Iterable[Observation], rules: Rules) -> list[Transition]:
    """What new live prices of one coin change, in the order of time."""
    known: dict[RuleName, Incident] = dict(memory)
    transitions = []
    for each in seen:
        for transition in decide(known, each, rules):
            known[transition.incident.rule] = transition.incident
            transitions.append(transition)
    return transitions


def _decide_moves(memory: Memory, seen: Observation, rules: Rules) -> list[Transition]:
    last_hour, last_day = memory.get("move_1h"), memory.get("move_24h")
    if any(last is not None and seen.ts <= last.changed_at for last in (last_hour, last_day)):
        return []
    incident = next((last for last in (last_hour, last_day) if last is not None and last.is_open), None)
    if incident is None:
        return _begin(memory, seen, rules)
    end = _end(incident, seen, rules)
    if end is None:
        worse = _worsen(incident, seen, rules)
        return [worse] if worse else []
    after = {**memory, incident.rule: end.incident}
    # The way back from a move is no news of its own; what goes beyond its beginning is.
    if incident.rule == "move_1h" and seen.move_1h is not None:
        beyond = -_away(incident, seen.price)
        if _is_same_way(incident, -seen.move_1h.log_return) and beyond < seen.move_1h.threshold:
            return [end]
    return [end, *_begin(after, seen, rules)]


def _begin(memory: Memory, seen: Observation, rules: Rules) -> list[Transition]:
    for move in (seen.move_1h, seen.move_24h):
        if move is None or not move.is_abnormal:
            continue
        last = memory.get(move.rule)
        # A spike that turns back within hours is one incident; the daily rule is armed again when its incident ends.
        if move.rule == "move_1h" and last is not None:
            quiet = _hours(last.told_at, seen.ts) < rules.move_1h.quiet_hours
            if quiet and abs(move.log_return) < rules.move_1h.worse_factor * abs(last.told):
                continue
        if move.rule == "move_24h" and _is_echo(memory, move, seen.price, rules):
            continue
        incident = Incident(
            coin=seen.coin,
            currency=seen.currency,
            rule=move.rule,
            state="firing",
            opened_at=seen.ts,
            changed_at=seen.ts,
            told_at=seen.ts,
            told=move.log_return,
            reference_price=move.reference_price,
        )
        return [_of_move(incident, move, seen, rules)]
    return []


def _is_echo(memory: Memory, day: Move, price: float, rules: Rules) -> bool:
    """Whether a move of a day shows no more than that the price had been elsewhere a day ago, and had come back.

    Both was told in its time. A spike would otherwise be told again a day later, as a move the other way.
    """
    last = memory.get("move_1h")
    if last is None or last.is_open or last.reference_price is None or day.reference_ts is None:
        return False
    # Within the quiet time nothing ends an incident but a price that comes back.
    came_back = last.state == "corrected" or _hours(last.told_at, last.changed_at) < rules.move_1h.quiet_hours
    if not came_back or not last.opened_at <= day.reference_ts < last.changed_at:
        return False
    return abs(math.log(price / last.reference_price)) < day.threshold


def _end(incident: Incident, seen: Observation, rules: Rules) -> Transition | None:
    """The end of an open incident of a move, if this is it."""
    day = seen.move_24h
    day_lasts = (
        day is not None
        and _is_same_way(incident, day.log_return)
        and abs(day.log_return) >= rules.move_24h.rearm_fraction * day.threshold
    )
    if incident.rule == "move_24h":
        # What cannot be known does not end it, but not for ever.
        lasts = day_lasts or (day is None and _hours(incident.told_at, seen.ts) < rules.move_24h.quiet_hours)
        return None if lasts else _of_end(incident, seen, "resolved", incident.rule)
    if seen.reverts is not None and seen.reverts == incident.opened_at == incident.told_at:
        return _of_end(incident, seen, "corrected", "spike_reverted")
    is_back = _away(incident, seen.price) <= (1 - rules.move_1h.revert_fraction) * abs(incident.told)
    is_old = _hours(incident.told_at, seen.ts) >= rules.move_1h.quiet_hours
    turned = (
        seen.move_1h is not None and seen.move_1h.is_abnormal and not _is_same_way(incident, seen.move_1h.log_return)
    )
    if is_back or (is_old and (turned or not day_lasts)):
        hour = seen.move_1h
        goes_on = hour is not None and hour.is_abnormal and _is_same_way(incident, hour.log_return)
        return None if goes_on and not is_back else _of_end(incident, seen, "resolved", incident.rule)
    return None


def _worsen(incident: Incident, seen: Observation, rules: Rules) -> Transition | None:
    """The next message of an open incident of a move: it is so much worse, or it goes on after the quiet time."""
    hour, day = seen.move_1h, seen.move_24h
    passed, told = _hours(incident.told_at, seen.ts), abs(incident.told)
    hour_goes_on = hour is not None and hour.is_abnormal and _is_same_way(incident, hour.log_return)
    away = _away(incident, seen.price)
    if incident.rule == "move_1h" and hour is not None and away >= rules.move_1h.worse_factor * told:
        return _of_worse(incident, _since_beginning(incident, hour, seen, rules), away, seen, rules)
    if hour is not None and hour_goes_on:
        much = abs(hour.log_return) >= rules.move_1h.worse_factor * told
        if much or passed >= rules.move_1h.quiet_hours:
            return _of_worse(incident, hour, max(away, abs(hour.log_return)), seen, rules)
    if incident.rule == "move_24h" and day is not None and day.is_abnormal and _is_same_way(incident, day.log_return):
        much = abs(day.log_return) >= rules.move_24h.worse_factor * told
        if much or passed >= rules.move_24h.quiet_hours:
            return _of_worse(incident, day, abs(day.log_return), seen, rules)
    return None


def _since_beginning(incident: Incident, hour: Move, seen: Observation, rules: Rules) -> Move:
    """The move from where an incident began: two falls in a row are one fall."""
    # The move that opened it took about an hour.
    hours = max(hour.hours, _hours(incident.opened_at, seen.ts) + 1)
    usual = hour.usual * math.sqrt(hours / hour.hours)
    return replace(
        hour,
        reference_price=incident.reference_price or hour.reference_price,
        reference_ts=None,
        log_return=math.copysign(_away(incident, seen.price), incident.told),
        hours=hours,
        usual=usual,
        threshold=max(rules.move_1h.sigmas * usual, rules.move_1h.min_pct / 100),
    )


def _of_worse(incident: Incident, move: Move, extent: float, seen: Observation, rules: Rules) -> Transition:
    # An abnormal hour more may be smaller than what was told before it: what is worse next is worse than all of it.
    told = math.copysign(max(extent, abs(incident.told)), incident.told)
    worse = replace(incident, state="worse", changed_at=seen.ts, told_at=seen.ts, told=told)
    return _of_move(worse, move, seen, rules)


def _of_move(incident: Incident, move: Move, seen: Observation, rules: Rules) -> Transition:
    critical = abs(move.log_return) >= rules.critical_factor * move.threshold
    return Transition(
        incident=incident,
        note=incident.rule,
        severity="critical" if critical else "warning",
        price=seen.price,
        change_pct=100 * (seen.price / move.reference_price - 1),
        threshold_pct=100 * math.expm1(math.copysign(move.threshold, move.log_return)),
        usual_pct=100 * move.usual,
        hours=move.hours,
        reference_price=move.reference_price,
        reference_ts=move.reference_ts,
    )


def _of_end(incident: Incident, seen: Observation, state: Literal["resolved", "corrected"], note: Note) -> Transition:
    reference = incident.reference_price
    return Transition(
        incident=replace(incident, state=state, changed_at=seen.ts),
        note=note,
        price=seen.price,
        change_pct=None if reference is None else 100 * (seen.price / reference - 1),
        hours=_hours(incident.opened_at, seen.ts),
        reference_price=reference,
    )


def _away(incident: Incident, price: float) -> float:
    """How far a price is from where the incident's move began, in its direction, as a log return."""
    if incident.reference_price is None:
        return 0.0
    return math.copysign(1.0, incident.told) * math.log(price / incident.reference_price)


def _is_same_way(incident: Incident, log_return: float) -> bool:
    return (incident.told < 0) == (log_return < 0)


def _hours(earlier: datetime, later: datetime) -> float:
    return (later - earlier).total_seconds() / 3600


def _decide_limit(
    memory: Memory,
    rule: Literal["limit_1h", "limit_24h"],
    change_pct: float | None,
    limit_pct: float | None,
    seen: Observation,
    rules: LimitRules,
) -> list[Transition]:
    last = memory.get(rule)
    if last is not None and seen.ts <= last.changed_at:
        return []
    told = 0.0 if last is None else last.told
    is_open = last is not None and last.is_open
    if change_pct is None and limit_pct is not None:
        return []
    size = 0.0 if change_pct is None else abs(change_pct)
    if is_open and last is not None and (limit_pct is None or size < rules.rearm_fraction * limit_pct):
        return [_of_end(last, seen, "resolved", rule)]
    if limit_pct is None or change_pct is None or size < limit_pct:
        return []
    log_return = math.log1p(change_pct / 100)
    same_way = (told < 0) == (log_return < 0)
    if is_open and same_way and abs(log_return) < rules.worse_factor * abs(told):
        return []
    worse = is_open and same_way
    # What turns right through the limit is over, and something new begins.
    ended = [_of_end(last, seen, "resolved", rule)] if is_open and not same_way and last is not None else []
    incident = Incident(
        coin=seen.coin,
        currency=seen.currency,
        rule=rule,
        state="worse" if worse else "firing",
        opened_at=last.opened_at if worse and last is not None else seen.ts,
        changed_at=seen.ts,
        told_at=seen.ts,
        told=log_return,
        reference_price=seen.price / (1 + change_pct / 100),
    )
    threshold_pct = math.copysign(limit_pct, change_pct)
    return [
        *ended,
        Transition(
            incident=incident,
            note=rule,
            price=seen.price,
            change_pct=change_pct,
            threshold_pct=threshold_pct,
            hours=1.0 if rule == "limit_1h" else 24.0,
            reference_price=incident.reference_price,
        ),
    ]


def _decide_stale(memory: Memory, seen: Observation) -> list[Transition]:
    last = memory.get("stale")
    if last is not None and seen.ts <= last.changed_at:
        return []
    is_open = last is not None and last.is_open
    if seen.stale and not is_open:
        incident = Incident(seen.coin, seen.currency, "stale", "firing", seen.ts, seen.ts, seen.ts)
        return [Transition(incident, "stale", price=seen.price, reason=seen.stale)]
    if last is not None and is_open and not seen.stale:
        return [
            Transition(
                replace(last, state="resolved", changed_at=seen.ts), "stale", price=seen.price, reason="it moves again"
            )
        ]
    return []


@dataclass(frozen=True, slots=True)
class HeldValue:
    """A value in quarantine, as far as its incident is concerned.

    Attributes:
        ts: As-of time of its pull.
        value: As the API wrote it.
        reason: Why it is held back.
        confirmed_at: Time of the pull that confirmed it; none unless one did.
        is_decided: Whether it was released or rejected.
    """

    ts: datetime
    value: str
    reason: str
    confirmed_at: datetime | None = None
    is_decided: bool = False


def decide_bad_values(
    last: Incident | None,
    coin: str,
    currency: str,
    held: Sequence[HeldValue],
    accepted: tuple[datetime, float] | None,
    now: datetime,
) -> list[Transition]:
    """What the quarantine of a coin changes: one incident from its first value to the next price that is accepted.

    Args:
        last: The newest incident of bad values.
        coin: CoinGecko id.
        currency: Quote currency.
        held: Values that were held back, in the order of time.
        accepted: Time and price of the newest live price that was accepted; none if there is none.
        now: The present; an operator's decision has no other time.
    """
    transitions: list[Transition] = []
    incident = last if last is not None and last.is_open else None
    if incident is None:
        new = [value for value in held if last is None or value.ts > last.changed_at]
        if not new:
            return []
        first = new[0]
        incident = Incident(coin, currency, "bad_value", "firing", first.ts, first.ts, first.ts)
        reason = f"{first.value} was held back: {first.reason}"
        transitions.append(Transition(incident, "bad_value", price=_number(first.value), reason=reason))
    mine = [value for value in held if value.ts >= incident.opened_at]
    confirmed = [value.confirmed_at for value in mine if value.confirmed_at is not None]
    if accepted is not None and mine and accepted[0] > max(value.ts for value in mine):
        note: Note = "level_confirmed" if confirmed else "bad_value"
        reason = "pulls in a row agree on the new level" if confirmed else "the next price was in line again"
        over = replace(incident, state="resolved", changed_at=accepted[0])
        transitions.append(Transition(over, note, price=accepted[1], reason=reason))
    elif mine and all(value.is_decided for value in mine):
        over = replace(incident, state="resolved", changed_at=now)
        transitions.append(Transition(over, "bad_value", reason="an operator has decided"))
    return transitions


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
