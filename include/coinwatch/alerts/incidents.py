"""Incidents as they are stored: what the next decision has to remember of the ones before."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, func, select

from coinwatch.alerts.decide import HeldValue, Incident, RuleName, Transition, decide_all, decide_bad_values
from coinwatch.alerts.observe import observe
from coinwatch.quarantine.held import CONFIRMED
from coinwatch.rules import RuleBook
from coinwatch.slack.outbox import Alert, store_alerts
from coinwatch.statistics.compute import CONTEXT, read_history
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import upsert
from coinwatch.warehouse.work import clear_work, pending_work

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

OPEN = ("firing", "worse")
"""States of an incident that is not over."""

WATCH_FEED = "watch_feed"
"""What alerts name as their run that no run of `process_prices` has raised."""

_i = schema.incidents.c
_p = schema.prices.c
_q = schema.quarantine.c


def open_incidents(connection: Connection) -> Sequence[Row[Any]]:
    """The incidents that are not over, rows of ``incidents``, the oldest first."""
    query = select(schema.incidents).where(_i.state.in_(OPEN)).order_by(_i.opened_at, _i.id)
    return connection.execute(query).all()


def read_memory(connection: Connection, currency: str) -> dict[str, dict[RuleName, Incident]]:
    """The newest incident of each coin and rule."""
    memory: dict[str, dict[RuleName, Incident]] = defaultdict(dict)
    for row in connection.execute(select(schema.incidents).where(_i.currency == currency)):
        incident = Incident(**{name: getattr(row, name) for name in Incident.__dataclass_fields__})
        memory[row.coin][incident.rule] = incident
    return memory


def store_transitions(
    connection: Connection, transitions: Sequence[Transition], rules: RuleBook, *, at: datetime, run_id: str
) -> list[Alert]:
    """Store what was decided, in the transaction that decides it: the incidents, and an alert for each transition.

    Returns:
        The alerts; one that is there already stays as it is.
    """
    newest = {(turn.incident.coin, turn.incident.currency, turn.incident.rule): turn.incident for turn in transitions}
    names = [*Incident.__dataclass_fields__, "id"]
    upsert(
        connection,
        schema.incidents,
        [{name: getattr(incident, name) for name in names} for incident in newest.values()],
    )
    alerts = [Alert.of(turn, rules.symbol(turn.incident.coin), raised_at=at, run_id=run_id) for turn in transitions]
    store_alerts(connection, alerts)
    return alerts


def see_quarantine(connection: Connection, currency: str, now: datetime) -> list[Transition]:
    """What the values that are held back change, of every coin that has some since its last incident."""
    memory = read_memory(connection, currency)
    held: dict[str, list[HeldValue]] = defaultdict(list)
    query = select(schema.quarantine).where(_q.currency == currency, _q.source == "live")
    for row in connection.execute(query.order_by(_q.coin, _q.ts)):
        last = memory[row.coin].get("bad_value")
        if last is None or (row.ts >= last.opened_at if last.is_open else row.ts > last.changed_at):
            confirmed_at = row.decided_at if row.decided_by == CONFIRMED else None
            held[row.coin].append(HeldValue(row.ts, row.value, row.reason, confirmed_at, row.state != "held"))
    transitions: list[Transition] = []
    for coin, values in held.items():
        live = select(_p.ts, _p.price).where(_p.coin == coin, _p.currency == currency, _p.source == "live")
        newest = connection.execute(live.where(_p.ts == _newest(coin, currency))).one_or_none()
        accepted = None if newest is None else (newest.ts, float(newest.price))
        last = memory[coin].get("bad_value")
        transitions += decide_bad_values(last, coin, currency, values, accepted, now)
    return transitions


def _newest(coin: str, currency: str) -> Any:
    live = (_p.coin == coin, _p.currency == currency, _p.source == "live")
    return select(func.max(_p.ts)).where(*live).scalar_subquery()


def detect_anomalies(app: "App", run_id: str) -> list[str]:
    """Decide on new live prices and on quarantined values, and store an alert for each transition.

    Args:
        app: The app.
        run_id: Run of `process_prices` that the alerts name.

    Returns:
        The messages of the new alerts.
    """
    now = app.clock()
    raised = []
    with app.warehouse.begin() as connection:
        for currency, since in pending_work(connection, "detection").items():
            memory = read_memory(connection, currency)
            history = read_history(connection, currency, since, CONTEXT)
            for coin, seen in observe(history, currency, since, app.rules):
                transitions = decide_all(memory.get(coin, {}), seen, app.rules.for_coin(coin))
                raised += store_transitions(connection, transitions, app.rules, at=now, run_id=run_id)
            for name, samples in history.groupby("coin")["sigma_samples"].last().fillna(0).items():
                enough = app.rules.for_coin(str(name)).warm_up_samples
                if samples < enough:
                    log.info("%s: learning, %d of %d", name, samples, enough)
            clear_work(connection, "detection", currency, since)
        held = see_quarantine(connection, app.settings.currency, now)
        raised += store_transitions(connection, held, app.rules, at=now, run_id=run_id)
    for alert in raised:
        log.warning("alert %s: %s", alert.id, alert.message)
    return [alert.message for alert in raised]
