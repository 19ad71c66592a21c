"""The quarantine: values that are not stored as prices, and the decisions of rules and operators on them."""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Row, func, select, update

from coinwatch.errors import InvalidAction
from coinwatch.quarantine.screening import Decision, Value, outliers, screen
from coinwatch.record import RawPrice
from coinwatch.rules import RuleBook
from coinwatch.times import format_time
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import upsert
from coinwatch.warehouse.prices import accept_prices

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

Series = Mapping[tuple[str, str], Mapping[datetime, RawPrice]]
"""(coin, currency) → time → raw price; all of one source."""

Key = tuple[str, str, datetime, str]
"""Primary key of ``quarantine`` and ``raw_prices``: (coin, currency, time, source)."""

AROUND = timedelta(days=1)
"""How far the neighbours of a point of history may be away."""

CONFIRMED = "polls in a row that agree"
"""Who decided, if no operator did."""

ALL = "*"

_p = schema.prices.c
_q = schema.quarantine.c
_r = schema.raw_prices.c


@dataclass(frozen=True, slots=True)
class Held:
    """A value to quarantine: its columns of ``quarantine``."""

    coin: str
    currency: str
    ts: datetime
    source: str
    value: str
    reason: str
    snapshot: str


def hold(connection: Connection, values: Sequence[Held], now: datetime) -> None:
    """Quarantine values; one that was quarantined before keeps its state."""
    undecided = {"state": "held", "held_at": now, "decided_at": None, "decided_by": None}
    upsert(connection, schema.quarantine, [asdict(value) | undecided for value in values], keep=True)


def screen_live(connection: Connection, series: Series, rules: RuleBook, now: datetime) -> list[RawPrice]:
    """Quarantine live values that are too far from the price before; return the raw prices to store as prices.

    With them come those that are released because these agree with them.
    """
    before = _state_before(connection, {key: min(rows) for key, rows in series.items()})
    decisions: list[tuple[RawPrice, Decision]] = []
    for key, rows in series.items():
        values = (Value(ts, Decimal(rows[ts].price)) for ts in sorted(rows))
        decided = screen(values, rules.for_coin(key[0]).bad_value, *before.get(key, ()))
        decisions += [(rows[decision.value.ts], decision) for decision in decided]
    hold(connection, [_held(row, each.value.ts, each.reason) for row, each in decisions if each.reason], now)
    accepted: list[RawPrice] = []
    for row, decision in decisions:
        if not decision.reason:
            for value in decision.released:
                released = release(connection, (row.coin, row.currency, value.ts, "live"), CONFIRMED, decision.value.ts)
                accepted += [released] if released is not None else []
            accepted.append(row)
    return accepted


def _state_before(
    connection: Connection, times: Mapping[tuple[str, str], datetime]
) -> dict[tuple[str, str], tuple[Value, list[Value]]]:
    """Return the newest price of each series before a time, and the values quarantined since then.

    ``raw_prices`` has a live row at each of the times.
    """
    before: dict[tuple[str, str], tuple[Value, list[Value]]] = {}
    earlier = schema.prices.alias().c
    same_series = (earlier.coin == _r.coin, earlier.currency == _r.currency)
    newest = select(func.max(earlier.ts)).where(*same_series, earlier.ts < _r.ts).scalar_subquery()
    for (currency, moment), coins in _grouped(times).items():
        prices = schema.prices.join(
            schema.raw_prices, (_p.coin == _r.coin) & (_p.currency == _r.currency) & (_p.ts == newest)
        )
        query = select(_p.coin, _p.ts, _p.price).select_from(prices)
        query = query.where(_r.ts == moment, _r.source == "live", _r.currency == currency, _r.coin.in_(coins))
        last = {row.coin: Value(row.ts, row.price) for row in connection.execute(query)}
        if not last:
            continue
        since = min(value.ts for value in last.values())
        raw = schema.quarantine.outerjoin(
            schema.raw_prices,
            (_r.coin == _q.coin) & (_r.currency == _q.currency) & (_r.ts == _q.ts) & (_r.source == _q.source),
        )
        query = select(_q.coin, _q.ts, _q.state, _r.price).select_from(raw).order_by(_q.ts)
        query = query.where(_q.currency == currency, _q.coin.in_(last), _q.source == "live")
        held: dict[str, list[Value]] = defaultdict(list)
        for row in connection.execute(query.where(_q.ts > since, _q.ts < moment)):
            if row.ts > last[row.coin].ts:
                # Any value between two others separates them; a rejected one, or one without a price, agrees with none.
                price = Decimal(row.price) if row.price is not None and row.state == "held" else None
                held[row.coin].append(Value(row.ts, price))
        before |= {(coin, currency): (value, held[coin]) for coin, value in last.items()}
    return before


def _grouped(keyed: Mapping[tuple[str, str], Any]) -> dict[tuple[str, Any], list[str]]:
    """Return the coins of each currency and value: one statement serves all coins of a group."""
    groups: dict[tuple[str, Any], list[str]] = defaultdict(list)
    for (coin, currency), value in keyed.items():
        groups[currency, value].append(coin)
    return groups


def screen_history(connection: Connection, series: Series, rules: RuleBook, now: datetime) -> list[RawPrice]:
    """Quarantine hours of history that are too far from both neighbours; return the raw prices to store as prices."""
    stored: dict[tuple[str, str], dict[datetime, Decimal]] = defaultdict(dict)
    spans = {key: (min(rows), max(rows)) for key, rows in series.items()}
    for (currency, (first, last)), coins in _grouped(spans).items():
        query = select(_p.coin, _p.ts, _p.price).where(_p.currency == currency, _p.coin.in_(coins))
        for row in connection.execute(query.where(_p.ts.between(first - AROUND, last + AROUND))):
            stored[row.coin, currency][row.ts] = row.price
    accepted: list[RawPrice] = []
    held: list[Held] = []
    for key, rows in series.items():
        rule = rules.for_coin(key[0]).bad_value
        alone = outliers(stored[key] | {ts: Decimal(row.price) for ts, row in rows.items()}, rule)
        reason = f"it is more than {rule.max_step_pct:g} % away from the price before it and from the one after it"
        held += [_held(row, ts, reason) for ts, row in rows.items() if ts in alone]
        accepted += [row for ts, row in rows.items() if ts not in alone]
    hold(connection, held, now)
    return accepted


def _held(row: RawPrice, ts: datetime, reason: str) -> Held:
    return Held(row.coin, row.currency, ts, row.source, row.price, reason, row.snapshot)


def release(connection: Connection, key: Key, by: str, at: datetime) -> RawPrice | None:
    """Release a value from quarantine; the caller stores it as a price in the same transaction.

    Args:
        connection: The caller's transaction.
        key: The value's key.
        by: Who releases it, and why.
        at: The time of the decision; of polls that agree, that of the newest.

    Returns:
        Its raw price; None if it has none because it is not a number: it stays in quarantine.
    """
    line = connection.execute(select(schema.raw_prices).where(*_has_key(_r, key))).mappings().one_or_none()
    if line is None:
        return None
    _decide(connection, key, "released", by, at)
    values = dict(line)
    return RawPrice(timestamp=format_time(values.pop("ts")), **values)


def _decide(connection: Connection, key: Key, state: str, by: str, at: datetime) -> None:
    statement = update(schema.quarantine).where(*_has_key(_q, key))
    connection.execute(statement.values(state=state, decided_by=by, decided_at=at))


def _has_key(columns: Any, key: Key) -> list[ColumnElement[bool]]:
    return [columns[name] == value for name, value in zip(("coin", "currency", "ts", "source"), key, strict=True)]


def review_quarantine(app: "App", params: Mapping[str, Any], run_id: str) -> dict[str, list[str]]:
    """List quarantined values, release them, or reject them; return the times of the released ones by coin.

    The params are ``action`` (list, release or reject), ``coin`` and ``ts`` (``*``: all), and ``reason``.

    Raises:
        InvalidAction: There is no such value, or it cannot be a price.
    """
    action, coin, ts = params["action"], params["coin"].strip() or ALL, (params["ts"] or "").strip() or ALL
    by = f"operator: {params['reason'] or 'no reason given'} ({run_id})"
    released: dict[str, list[str]] = defaultdict(list)
    with app.warehouse.begin() as connection:
        query = select(schema.quarantine).where(_q.state == "held", _q.currency == app.settings.currency)
        held = connection.execute(query.order_by(_q.coin, _q.ts)).all()
        if action == "list":
            for value in held:
                log.info("quarantined: %s", _describe(value))
            log.info("%d values are quarantined", len(held))
            return {}
        if action == "release" and coin == ts == ALL:
            raise InvalidAction("release needs a coin or a time: not every quarantined value is right")
        chosen = [value for value in held if coin in (ALL, value.coin) and ts in (ALL, format_time(value.ts))]
        if not chosen:
            known = "; ".join(map(_describe, held[:20])) or "none"
            raise InvalidAction(f"no value of coin {coin} at {ts} is quarantined. Quarantined: {known}")
        for value in chosen:
            key = (value.coin, value.currency, value.ts, value.source)
            if action == "reject":
                _decide(connection, key, "rejected", by, app.clock())
                continue
            row = release(connection, key, by, app.clock())
            if row is None:
                raise InvalidAction(f"{_describe(value)} is not a positive number: reject it")
            accept_prices(connection, [row])
            released[value.coin].append(row.timestamp)
    for value in chosen:
        log.warning("%s by %s: %s", "rejected" if action == "reject" else "released", by, _describe(value))
    return dict(released)


def _describe(value: Row[Any]) -> str:
    time = format_time(value.ts)
    return f"{value.coin} {time} ({value.source}): {value.value}; {value.reason}; snapshot {value.snapshot}"
