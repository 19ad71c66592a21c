"""Statistics in the warehouse: from new prices to rows of ``price_statistics``."""

import logging
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd
from sqlalchemy import Connection, Row, and_, func, select

from coinwatch.statistics.rolling import compute_statistics, to_records
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import upsert
from coinwatch.warehouse.work import clear_work, mark_uploads, mark_work, pending_work

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

CONTEXT = timedelta(hours=25)
"""How far the windows of a row reach back: 24 hours and an hour of tolerance."""

_p = schema.prices.c
_s = schema.price_statistics.c
_w = schema.pending_work.c


def read_prices(connection: Connection, currency: str, since: Mapping[str, datetime]) -> pd.DataFrame:
    """Return the prices that ``compute_statistics`` needs for pending work, and their exact Decimals as ``amount``."""
    work = and_(_w.step == "statistics", _w.coin == _p.coin, _w.currency == _p.currency)
    known = and_(_s.coin == _p.coin, _s.currency == _p.currency, _s.ts == _p.ts)
    query = (
        select(_p.coin, _p.ts, _p.price, _p.source)
        .add_columns(_s.sigma_variance, _s.sigma_samples, _s.unchanged_since, _s.unchanged_polls)
        .select_from(schema.pending_work.join(schema.prices, work).outerjoin(schema.price_statistics, known))
        .where(_w.currency == currency)
    )
    older = schema.prices.alias()
    before = select(func.max(older.c.ts)).where(
        older.c.coin == _w.coin, older.c.currency == _w.currency, older.c.ts < _w.since
    )
    rows: list[Row[Any]] = []
    for moment in set(since.values()):
        start = moment - CONTEXT
        rows += connection.execute(query.where(_w.since == moment, _p.ts >= start)).all()
        # After an outage the last row before is older.
        last = query.where(_w.since == moment, _p.ts < start, _p.ts == before.scalar_subquery())
        rows += connection.execute(last).all()
    names = ["coin", "ts", "amount", "source", "sigma_variance", "sigma_samples", "unchanged_since", "unchanged_polls"]
    frame = pd.DataFrame(rows, columns=names)
    for name in ("ts", "unchanged_since"):
        frame[name] = pd.to_datetime(frame[name], utc=True)
    for name in ("sigma_variance", "sigma_samples", "unchanged_polls"):
        frame[name] = frame[name].astype("float64")
    frame["price"] = frame["amount"].astype("float64")
    return frame.sort_values(["coin", "ts"], ignore_index=True)


def store_statistics(connection: Connection, currency: str, statistics: pd.DataFrame, prices: pd.DataFrame) -> None:
    """Store statistics of ``prices``, and mark the work that follows from them, in the caller's transaction."""
    source = prices.loc[statistics.index]
    rows = to_records(statistics.assign(price=source["amount"], currency=currency))
    upsert(connection, schema.price_statistics, rows)
    mark_uploads(connection, "processed", (row["ts"] for row in rows))
    mark_work(connection, "export", currency, _first_times(source))
    # Live prices without statistics are new. The newest may mean something else now; older ones were decided in their
    # time. Hours filled in later raise no market alert.
    is_newest = ~source["coin"].duplicated(keep="last")
    undecided = (source["source"] == "live") & (source["unchanged_polls"].isna() | is_newest)
    mark_work(connection, "detection", currency, _first_times(source[undecided]))


def _first_times(rows: pd.DataFrame) -> dict[str, datetime]:
    return {str(coin): ts.to_pydatetime() for coin, ts in rows.groupby("coin")["ts"].first().items()}


def compute_rolling_statistics(app: "App") -> dict[str, int]:
    """Compute the statistics of new prices and of every later row, and return the number of rows by coin."""
    computed: dict[str, int] = defaultdict(int)
    with app.warehouse.begin() as connection:
        for currency, since in pending_work(connection, "statistics").items():
            prices = read_prices(connection, currency, since)
            statistics = compute_statistics(prices, since, app.rules)
            store_statistics(connection, currency, statistics, prices)
            for coin, rows in statistics["coin"].value_counts().items():
                computed[str(coin)] += int(rows)
            clear_work(connection, "statistics", currency, since)
    log.info("rows computed: %s", dict(computed))
    return dict(computed)
