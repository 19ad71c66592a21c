"""Incidents as they are stored, and the step that changes them."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, RowMapping, and_, bindparam, delete, or_, select

from coinwatch.alerts.bad_value import QuarantinedValue, decide_bad_value
from coinwatch.alerts.decide import OPEN, Incident, RuleName, Transition, decide_all
from coinwatch.alerts.observe import observe
from coinwatch.quarantine.held import CONFIRMED
from coinwatch.rules import RuleBook
from coinwatch.slack.wording import describe
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import upsert
from coinwatch.warehouse.work import clear_work, pending_work

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

WATCH_FEED = "watch_feed"
"""Stored as the run of alerts that no run of `process_prices` has raised."""

_FIELDS = [field.name for field in fields(Incident)]

_i = schema.incidents.c
_p = schema.prices.c
_q = schema.quarantine.c
_s = schema.price_statistics.c
_w = schema.pending_work.c


def read_memory(connection: Connection, currency: str) -> dict[str, dict[RuleName, Incident]]:
    """Return the newest incident of each coin and rule."""
    memory: dict[str, dict[RuleName, Incident]] = defaultdict(dict)
    for row in connection.execute(select(*(_i[name] for name in _FIELDS)).where(_i.currency == currency)):
        memory[row.coin][row.rule] = Incident(*row)
    return memory


def store_transitions(
    connection: Connection, transitions: Sequence[Transition], rules: RuleBook, *, at: datetime, run_id: str
) -> list[dict[str, Any]]:
    """Store incidents and an alert for each transition, in the transaction that decides them.

    Returns:
        The alerts, rows of ``alerts``; one that is stored already stays as it is, delivered or not.
    """
    if not transitions:
        return []
    newest = {(each.incident.coin, each.incident.currency, each.incident.rule): each.incident for each in transitions}
    rows = [{name: getattr(incident, name) for name in (*_FIELDS, "id")} for incident in newest.values()]
    # A new incident starts without the acknowledgement of the one before it; a transition of the same one keeps it.
    key = [_i[name] == bindparam(f"new_{name}") for name in ("coin", "currency", "rule")]
    before = delete(schema.incidents).where(*key, _i.id != bindparam("new_id"))
    connection.execute(before, [{f"new_{name}": value for name, value in row.items()} for row in rows])
    upsert(connection, schema.incidents, rows)
    alerts = [
        {
            "id": each.id,
            "coin": each.incident.coin,
            "currency": each.incident.currency,
            "rule": each.note,
            "severity": each.severity,
            "state": each.incident.state,
            "ts": each.ts,
            "value": each.change_pct if each.incident.is_open else None,
            "threshold": each.threshold_pct,
            "message": describe(each, rules.symbol(each.incident.coin)),
            "raised_at": at,
            "run_id": run_id,
            "incident_id": each.incident.id,
            "delivery": "pending",
        }
        for each in transitions
    ]
    upsert(connection, schema.alerts, alerts, keep=True)
    return alerts


def see_quarantine(connection: Connection, currency: str, now: datetime) -> list[Transition]:
    """Return what quarantined values change: those of an open incident, or since the last one, of each coin."""
    live = schema.prices.alias()
    newest = (
        select(live.c.ts)
        .where(live.c.coin == _q.coin, live.c.currency == _q.currency, live.c.source == "live")
        .order_by(live.c.ts.desc())
        .limit(1)
    )
    own = and_(_i.coin == _q.coin, _i.currency == _q.currency, _i.rule == "bad_value")
    accepted = and_(_p.coin == _q.coin, _p.currency == _q.currency, _p.ts == newest.scalar_subquery())
    is_open = _i.state.in_(OPEN)
    query = (
        select(schema.quarantine, _p.ts.label("accepted_ts"), _p.price.label("accepted_price"))
        .select_from(schema.quarantine.outerjoin(schema.incidents, own).outerjoin(schema.prices, accepted))
        .where(_q.currency == currency, _q.source == "live")
        .where(or_(_i.coin.is_(None), and_(is_open, _q.ts >= _i.opened_at), and_(~is_open, _q.ts > _i.changed_at)))
        .order_by(_q.coin, _q.ts)
    )
    memory = read_memory(connection, currency)
    transitions: list[Transition] = []
    for coin, rows in groupby(connection.execute(query), key=lambda row: str(row.coin)):
        values = list(rows)
        price = (values[0].accepted_ts, float(values[0].accepted_price)) if values[0].accepted_ts else None
        quarantined = [
            QuarantinedValue(row.ts, row.value, row.reason, row.decided_by == CONFIRMED, row.state != "held")
            for row in values
        ]
        transitions += decide_bad_value(memory[coin].get("bad_value"), coin, currency, quarantined, price, now)
    return transitions


def _undecided(connection: Connection, currency: str) -> list[dict[str, Any]]:
    """Return the live prices of pending detection with their statistics, by coin and time."""
    work = and_(_w.step == "detection", _w.coin == _s.coin, _w.currency == _s.currency, _w.since <= _s.ts)
    live = and_(_p.coin == _s.coin, _p.currency == _s.currency, _p.ts == _s.ts, _p.source == "live")
    query = (
        select(schema.price_statistics, _p.last_updated_at, _p.fetched_at)
        .select_from(schema.pending_work.join(schema.price_statistics, work).join(schema.prices, live))
        # Where a live price has just replaced one of history, its statistics are still to come, and mark it again.
        .where(_w.currency == currency, _s.unchanged_polls.is_not(None))
        .order_by(_s.coin, _s.ts)
    )
    return [{**row, "age_minutes": _age_minutes(row)} for row in connection.execute(query).mappings()]


def _age_minutes(row: RowMapping) -> float | None:
    if row["last_updated_at"] is None or row["fetched_at"] is None:
        return None
    return float((row["fetched_at"] - row["last_updated_at"]).total_seconds() / 60)


def detect_anomalies(app: "App", run_id: str) -> list[str]:
    """Decide on new live prices and on quarantined values, store an alert for each transition, return the messages."""
    now = app.clock()
    transitions: list[Transition] = []
    learning = []
    with app.warehouse.begin() as connection:
        for currency, since in pending_work(connection, "detection").items():
            memory = read_memory(connection, currency)
            for coin, rows in groupby(_undecided(connection, currency), key=lambda row: str(row["coin"])):
                rules = app.rules.for_coin(coin)
                prices = list(rows)
                transitions += decide_all(memory[coin], [observe(row, rules) for row in prices], rules)
                if prices[-1]["sigma_samples"] < rules.warm_up_samples:
                    learning.append(f"{coin}: learning, {prices[-1]['sigma_samples']} of {rules.warm_up_samples}")
            clear_work(connection, "detection", currency, since)
        raised = store_transitions(connection, transitions, app.rules, at=now, run_id=run_id)
        quarantined = see_quarantine(connection, app.settings.currency, now)
        raised += store_transitions(connection, quarantined, app.rules, at=now, run_id=run_id)
    if learning:
        log.info("no market alerts during the warm-up: %s", "; ".join(learning))
    for alert in raised:
        log.warning("alert %s: %s", alert["id"], alert["message"])
    return [alert["message"] for alert in raised]
