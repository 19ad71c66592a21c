"""The quarantine: values that were held back, and what became of them. A value in it is no price."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row, select, update

from coinwatch.quarantine.screening import Standing, Value, outliers, screen
from coinwatch.record import RawPrice
from coinwatch.rules import BadValueRule
from coinwatch.times import format_time
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import upsert

_p = schema.prices.c
_q = schema.quarantine.c
_r = schema.raw_prices.c

AROUND = timedelta(days=1)
"""How far from a point of history its neighbours are looked for."""

CONFIRMED = "pulls in a row that agree"


@dataclass(frozen=True, slots=True)
class Held:
    """A value to be held back.

    Attributes:
        coin: CoinGecko id.
        currency: Quote currency.
        ts: As-of time of the pull, or full hour of history.
        source: live or history.
        value: As the API wrote it.
        reason: Why, in words.
        snapshot: Archived answer that it stands in.
    """

    coin: str
    currency: str
    ts: datetime
    source: str
    value: str
    reason: str
    snapshot: str


def hold(connection: Connection, values: Sequence[Held], now: datetime) -> None:
    """Put values into quarantine; one that is there already stays as it is, and so does what was decided of it."""
    rows = [
        {
            "coin": held.coin,
            "currency": held.currency,
            "ts": held.ts,
            "source": held.source,
            "value": held.value,
            "reason": held.reason,
            "snapshot": held.snapshot,
            "state": "held",
            "held_at": now,
            "decided_at": None,
            "decided_by": None,
        }
        for held in values
    ]
    upsert(connection, schema.quarantine, rows, keep=True)


def screen_live(connection: Connection, rows: Sequence[RawPrice], rule: BadValueRule, now: datetime) -> list[RawPrice]:
    """Decide on live values of one coin and currency; what is held back is stored as such.

    Returns:
        The lines that are prices, with those released from quarantine because these agree with them.
    """
    if not rows:
        return []
    by_time = {row.moment: row for row in sorted(rows, key=lambda row: row.moment)}
    standing = _standing(connection, rows[0].coin, rows[0].currency, min(by_time))
    decisions, _ = screen(standing, (Value(ts, Decimal(row.price)) for ts, row in by_time.items()), rule)
    accepted: list[RawPrice] = []
    for decision in decisions:
        row = by_time[decision.value.ts]
        if decision.verdict == "held":
            hold(connection, [_held(row, decision.reason)], now)
            continue
        for value in decision.released:
            released = release(connection, row.coin, row.currency, value.ts, "live", CONFIRMED, decision.value.ts)
            accepted += [released] if released is not None else []
        accepted.append(row)
    return accepted


def _standing(connection: Connection, coin: str, currency: str, before: datetime) -> Standing:
    prices = select(_p.ts, _p.price).where(_p.coin == coin, _p.currency == currency, _p.ts < before)
    last = connection.execute(prices.order_by(_p.ts.desc()).limit(1)).one_or_none()
    if last is None:
        return Standing()
    held = select(_q.ts, _r.price).select_from(
        schema.quarantine.outerjoin(
            schema.raw_prices,
            (_r.coin == _q.coin) & (_r.currency == _q.currency) & (_r.ts == _q.ts) & (_r.source == _q.source),
        )
    )
    # A pull that lies between two others parts them, whatever was decided of it; a rejected value agrees with none.
    since = (_q.coin == coin, _q.currency == currency, _q.source == "live", _q.ts > last.ts, _q.ts < before)
    rows = connection.execute(held.add_columns(_q.state).where(*since).order_by(_q.ts)).all()
    values = [
        Value(row.ts, Decimal(row.price) if row.price is not None and row.state == "held" else None) for row in rows
    ]
    return Standing(Value(last.ts, last.price), tuple(values))


def screen_history(
    connection: Connection, rows: Sequence[RawPrice], rule: BadValueRule, now: datetime
) -> list[RawPrice]:
    """Decide on hours of history of one coin and currency: one that stands alone among its neighbours is held back.

    Returns:
        The lines that are prices.
    """
    if not rows:
        return []
    new = {row.moment: row for row in rows}
    around = select(_p.ts, _p.price).where(
        _p.coin == rows[0].coin,
        _p.currency == rows[0].currency,
        _p.ts.between(min(new) - AROUND, max(new) + AROUND),
    )
    stored = {row.ts: row.price for row in connection.execute(around) if row.ts not in new}
    points = sorted([*stored.items(), *((ts, Decimal(row.price)) for ts, row in new.items())])
    alone = {
        points[number][0]
        for number in outliers([price for _, price in points], [ts in stored for ts, _ in points], rule)
    }
    reason = f"it is more than {rule.max_step_pct:g} % away from the price before it and from the one after it"
    hold(connection, [_held(new[ts], reason) for ts in sorted(alone)], now)
    return [row for ts, row in new.items() if ts not in alone]


def _held(row: RawPrice, reason: str) -> Held:
    return Held(row.coin, row.currency, row.moment, row.source, row.price, reason, row.snapshot)


def release(
    connection: Connection, coin: str, currency: str, ts: datetime, source: str, by: str, at: datetime
) -> RawPrice | None:
    """Take a value out of quarantine.

    Args:
        connection: The transaction, in which the caller stores it as a price.
        coin: CoinGecko id.
        currency: Quote currency.
        ts: The value's time.
        source: live or history.
        by: What or who releases it, in words.
        at: When; of pulls that agree, the time of the newest.

    Returns:
        Its line of the raw log; none if it has none, because it is no number: then it stays where it is.
    """
    where = (_r.coin == coin, _r.currency == currency, _r.ts == ts, _r.source == source)
    line = connection.execute(select(schema.raw_prices).where(*where)).mappings().one_or_none()
    if line is None:
        return None
    _decide(connection, coin, currency, ts, source, state="released", by=by, at=at)
    values = dict(line)
    return RawPrice(timestamp=format_time(values.pop("ts")), **values)


def reject(connection: Connection, coin: str, currency: str, ts: datetime, source: str, by: str, at: datetime) -> None:
    """Keep a value out for good."""
    _decide(connection, coin, currency, ts, source, state="rejected", by=by, at=at)


def _decide(
    connection: Connection, coin: str, currency: str, ts: datetime, source: str, *, state: str, by: str, at: datetime
) -> None:
    where = (_q.coin == coin, _q.currency == currency, _q.ts == ts, _q.source == source)
    connection.execute(update(schema.quarantine).where(*where).values(state=state, decided_by=by, decided_at=at))


def held_values(connection: Connection, currency: str) -> Sequence[Row[Any]]:
    """What is held back and not decided, rows of ``quarantine``, by coin and time."""
    query = select(schema.quarantine).where(_q.state == "held", _q.currency == currency)
    return connection.execute(query.order_by(_q.coin, _q.ts)).all()
