"""Statistics in the warehouse: from new prices to rows of ``price_statistics``."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sqlalchemy import Connection, and_, case, func, select, type_coerce
from sqlalchemy.types import NullType

from coinwatch.statistics.rolling import compute_statistics, to_records
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import begin_bulk, upsert
from coinwatch.warehouse.work import clear_work, mark_uploads, mark_work, pending_work

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

CHUNK_ROWS = 50_000
"""So many prices are read and computed in one transaction: a kill costs no more."""

_p = schema.prices.c
_s = schema.price_statistics.c
_w = schema.pending_work.c


@dataclass(frozen=True, slots=True)
class Chunk:
    """Prices to compute.

    Attributes:
        prices: As ``compute_statistics`` needs them, and the price as the database has it as ``amount``.
        since: Coin → from when on; without coins whose prices are all in a later chunk.
        rest: Coin → from when on, of the last coin if it goes on in the next chunk.
    """

    prices: pd.DataFrame
    since: dict[str, datetime]
    rest: dict[str, datetime]


def read_chunk(connection: Connection, currency: str, since: Mapping[str, datetime]) -> Chunk:
    """Return prices of pending work, by coin and time, with those that their windows reach back to."""
    older = schema.prices.alias()
    same_coin = (older.c.coin == _w.coin, older.c.currency == _w.currency)
    # After an outage the last row before is older than the windows.
    last = select(func.max(older.c.ts)).where(*same_coin, older.c.ts < _w.since).scalar_subquery()
    first = case((last < _w.context_since, last), else_=_w.context_since)
    pending = and_(_w.coin == _p.coin, _w.currency == _p.currency, _p.ts >= first)
    known = and_(_s.coin == _p.coin, _s.currency == _p.currency, _s.ts == _p.ts)
    columns = (_p.coin, _p.ts, _p.price, _p.source)
    remembered = (_s.sigma_variance, _s.sigma_samples, _s.unchanged_since, _s.unchanged_polls)
    query = (
        # Converted below, a column at a time.
        select(*(type_coerce(column, NullType).label(column.name) for column in (*columns, *remembered)))
        .select_from(schema.pending_work.join(schema.prices, pending).outerjoin(schema.price_statistics, known))
        .where(_w.step == "statistics", _w.currency == currency)
        .order_by(_w.coin, _p.ts)
        .limit(CHUNK_ROWS + 1)
    )
    rows = connection.execute(query).all()
    names = [column.name for column in (*columns, *remembered)]
    values = dict(zip(names, zip(*rows, strict=True) if rows else [()] * len(names), strict=True))
    frame = pd.DataFrame({"coin": pd.Series(values["coin"], dtype="object"), "source": values["source"]})
    frame["amount"] = pd.Series(values["price"], dtype="object")
    for name in ("ts", "unchanged_since"):
        frame[name] = pd.to_datetime(pd.Series(values[name], dtype="object"), utc=True, format="ISO8601")
    for name in ("price", "sigma_variance", "sigma_samples", "unchanged_polls"):
        frame[name] = np.array(values[name], dtype=np.float64)
    if len(frame) <= CHUNK_ROWS:
        return Chunk(frame, dict(since), {})
    coin, next_ts = str(frame["coin"].iloc[-1]), frame["ts"].iloc[-1].to_pydatetime()
    chunk = frame.iloc[:-1]
    done = {name: moment for name, moment in since.items() if name < coin}
    if next_ts > since[coin]:
        return Chunk(chunk, {**done, coin: since[coin]}, {coin: next_ts})
    return Chunk(chunk[chunk["coin"] != coin], done, {})


def store_statistics(connection: Connection, currency: str, statistics: pd.DataFrame, chunk: Chunk) -> None:
    """Store the statistics of a chunk, and mark the work that follows from them, in the caller's transaction."""
    source = chunk.prices.loc[statistics.index]
    rows = to_records(statistics.assign(price=source["amount"], currency=currency))
    upsert(connection, schema.price_statistics, rows)
    mark_uploads(connection, "processed", (row["ts"] for row in rows))
    mark_work(connection, "export", currency, _first_times(source))
    # Live prices without statistics are new. The newest may mean something else now; older ones were decided in their
    # time. Hours filled in later raise no market alert.
    is_newest = ~source["coin"].duplicated(keep="last") & ~source["coin"].isin(chunk.rest)
    undecided = (source["source"] == "live") & (source["unchanged_polls"].isna() | is_newest)
    mark_work(connection, "detection", currency, _first_times(source[undecided]))


def _first_times(rows: pd.DataFrame) -> dict[str, datetime]:
    first = rows[~rows["coin"].duplicated()]
    return dict(zip(first["coin"], first["ts"].dt.to_pydatetime(), strict=True))


def compute_rolling_statistics(app: "App") -> int:
    """Compute the statistics of new prices and of every later row, chunk by chunk; return the number of rows."""
    computed = 0
    while True:
        with begin_bulk(app.warehouse) as connection:
            work = pending_work(connection, "statistics")
            if not work:
                break
            currency, since = next(iter(work.items()))
            chunk = read_chunk(connection, currency, since)
            statistics = compute_statistics(chunk.prices, chunk.since, app.rules)
            store_statistics(connection, currency, statistics, chunk)
            clear_work(connection, "statistics", currency, chunk.since)
            mark_work(connection, "statistics", currency, chunk.rest)
        computed += len(statistics)
        if chunk.rest or len(chunk.since) < len(since):
            log.info("%d rows computed, the last of %s", computed, statistics["ts"].iloc[-1])
    log.info("%d rows computed", computed)
    return computed
