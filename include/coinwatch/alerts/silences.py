"""What operators do about alerts and pipeline issues: silence, unsilence, acknowledge, re-enable webhooks."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, delete, select, update

from coinwatch.alerts.decide import OPEN
from coinwatch.errors import InvalidAction
from coinwatch.health import issues
from coinwatch.times import parse_time
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import upsert

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

ALL = "*"
"""Every coin, or every rule."""

_s = schema.silences.c
_i = schema.incidents.c


def active_silences(connection: Connection, at: datetime) -> Sequence[Row[Any]]:
    """Return the silences that hold at a time, rows of ``silences``."""
    return connection.execute(select(schema.silences).where(_s.until > at).order_by(_s.id)).all()


def manage_alerts(app: "App", params: Mapping[str, Any]) -> str:
    """Apply the action that an operator asked for, and return what was done.

    The params are ``action`` (silence, unsilence, acknowledge or reenable_webhooks), ``coin``, ``rule``, ``until`` or
    ``hours``, and ``reason``. ``rule`` is a rule, ``*`` for all of them, or the key of a pipeline issue.

    Raises:
        InvalidAction: It is not possible; nothing was changed.
    """
    action = _ACTIONS.get(params["action"])
    if action is None:
        raise InvalidAction(f"action {params['action']!r} is unknown; allowed are {', '.join(_ACTIONS)}")
    given = {**params, **{name: params[name].strip() or ALL for name in ("coin", "rule")}}
    with app.warehouse.begin() as connection:
        done = action(connection, given, app.clock())
    log.info("%s", done)
    return done


def _silence(connection: Connection, params: Mapping[str, Any], now: datetime) -> str:
    coin, rule, reason = params["coin"], params["rule"], _reason(params)
    try:
        until = parse_time(params["until"]) if params["until"] else now + timedelta(hours=params["hours"])
    except ValueError as error:
        raise InvalidAction(f"until: {error}") from None
    if until <= now:
        raise InvalidAction(f"until: {until:%Y-%m-%d %H:%M} UTC is in the past; give a later time")
    values = {"coin": coin, "rule": rule, "until": until, "reason": reason, "created_at": now}
    upsert(connection, schema.silences, [{"id": f"{coin}-{rule}", **values}])
    return f"silenced until {until:%Y-%m-%d %H:%M} UTC: coin {coin}, rule {rule} ({reason})"


def _unsilence(connection: Connection, params: Mapping[str, Any], _now: datetime) -> str:
    coin, rule = params["coin"], params["rule"]
    if connection.execute(delete(schema.silences).where(_s.coin == coin, _s.rule == rule)).rowcount:
        return f"unsilenced: coin {coin}, rule {rule}"
    silences = connection.execute(select(schema.silences).order_by(_s.id))
    existing = "; ".join(f"coin {row.coin}, rule {row.rule}" for row in silences) or "none"
    raise InvalidAction(f"no silence has coin {coin} and rule {rule}; there are: {existing}")


def _acknowledge(connection: Connection, params: Mapping[str, Any], now: datetime) -> str:
    coin, rule, reason = params["coin"], params["rule"], _reason(params)
    query = select(schema.incidents).where(_i.state.in_(OPEN)).order_by(_i.opened_at, _i.id)
    incidents = connection.execute(query).all()
    keys = [issue.key for issue in issues.open_issues(connection)]
    ids = [row.id for row in incidents if coin in (ALL, row.coin) and rule in (ALL, row.rule)]
    if not ids and rule not in keys:
        there = ", ".join([f"{row.coin} {row.rule}" for row in incidents] + keys) or "none"
        raise InvalidAction(f"nothing with coin {coin} and rule {rule} is open; open are: {there}")
    values = {"acknowledged_at": now, "acknowledged_by": reason}
    connection.execute(update(schema.incidents).where(_i.id.in_(ids)).values(**values))
    if rule in keys:
        issues.acknowledge(connection, [rule], reason, now)
        ids.append(rule)
    return f"acknowledged ({reason}): {', '.join(ids)}"


def _reenable_webhooks(connection: Connection, _params: Mapping[str, Any], now: datetime) -> str:
    revoked = issues.open_issues(connection, "webhook:")
    for issue in revoked:
        issues.resolve(connection, issue.key, now, "An operator re-enabled it.")
    return f"webhooks re-enabled: {len(revoked)}"


def _reason(params: Mapping[str, Any]) -> str:
    reason: str = params["reason"].strip()
    if not reason:
        raise InvalidAction("reason is empty; write why, and who takes care of it")
    return reason


_ACTIONS: dict[str, Callable[[Connection, Mapping[str, Any], datetime], str]] = {
    "silence": _silence,
    "unsilence": _unsilence,
    "acknowledge": _acknowledge,
    "reenable_webhooks": _reenable_webhooks,
}
