"""Statistics in the warehouse: what they are computed from, and where they go."""

import logging
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sqlalchemy import Connection, Row, Select, and_, select

from coinwatch.statistics.rolling import compute_statistics
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import upsert
from coinwatch.warehouse.work import clear_work, mark_uploads, mark_work, pending_work

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

CONTEXT = timedelta(hours=30)
"""How far the windows of a row reach back: 24 hours and an hour of tolerance, and the hour before a spike."""

_p = schema.prices.c
_s = schema.price_statistics.c


def read_history(
    connection: Connection, currency: str, since: Mapping[str, datetime], context: timedelta
) -> pd.DataFrame:
    """Read prices and what is known of them, from some times on and with what came before.

    Args:
        connection: A transaction.
        currency: Quote currency.
        since: Coin → from when on.
        context: How much before that is wanted too; at the least the last row before it comes.

    Returns:
        Columns coin, ts (datetime64, UTC), amount (Decimal, exact), price (float64), source, age_minutes (float64: how
        old the price was when it was fetched; NaN unknown), sigma_variance and sigma_samples (float64; NaN where
        statistics have not been computed), sorted by coin and ts.
    """
    by_since: dict[datetime, list[str]] = defaultdict(list)
    for coin, moment in since.items():
        by_since[moment].append(coin)
    rows: list[Row[Any]] = []
    for moment, coins in by_since.items():
        recent = connection.execute(_history(currency).where(_p.ts >= moment - context, _p.coin.in_(coins))).all()
        rows += recent
        # Only after an outage is there nothing in the context; then the row before lies further back.
        for coin in set(coins) - {row.coin for row in recent if row.ts < moment}:
            before = _history(currency).where(_p.ts < moment, _p.coin == coin).order_by(_p.ts.desc()).limit(1)
            rows += connection.execute(before).all()
    names = ["coin", "ts", "amount", "source", "updated", "fetched", "sigma_variance", "sigma_samples"]
    frame = pd.DataFrame(rows, columns=names)
    for name in ("ts", "updated", "fetched"):
        frame[name] = pd.to_datetime(frame[name], utc=True)
    frame["age_minutes"] = (frame["fetched"] - frame["updated"]).dt.total_seconds() / 60
    for name in ("sigma_variance", "sigma_samples"):
        frame[name] = frame[name].astype("float64")
    frame["price"] = frame["amount"].astype("float64")
    return frame.sort_values(["coin", "ts"], ignore_index=True)


def _history(currency: str) -> Select[Any]:
    known = and_(_s.coin == _p.coin, _s.currency == _p.currency, _s.ts == _p.ts)
    return (
        select(
            *(_p.coin, _p.ts, _p.price, _p.source, _p.last_updated_at, _p.fetched_at),
            *(_s.sigma_variance, _s.sigma_samples),
        )
        .select_from(schema.prices.outerjoin(schema.price_statistics, known))
        .where(_p.currency == currency)
    )


def store_statistics(connection: Connection, currency: str, statistics: pd.DataFrame, history: pd.DataFrame) -> None:
    """Store statistics, and mark what has to be done because of them; all in the caller's transaction.

    Args:
        connection: The transaction.
        currency: Quote currency.
        statistics: As ``compute_statistics`` gives them.
        history: As ``read_history`` gave it: it has the exact prices.
    """
    exact = statistics[["coin", "ts"]].merge(history[["coin", "ts", "amount", "source"]], how="left", on=["coin", "ts"])
    # NaN is how pandas says unknown; in the warehouse that is null.
    columns = {name: statistics[name].astype(object) for name in statistics.columns if name in _s}
    frame = pd.DataFrame(columns | {"price": exact["amount"], "currency": currency}).replace({np.nan: None})
    times = [moment.to_pydatetime() for moment in statistics["ts"]]
    records: list[dict[str, Any]] = [
        {str(name): value for name, value in record.items()} | {"ts": ts}
        for record, ts in zip(frame.to_dict("records"), times, strict=True)
    ]
    upsert(connection, schema.price_statistics, records)

    mark_uploads(connection, "processed", times)
    mark_work(connection, "export", currency, _times(statistics.groupby("coin")["ts"].min()))
    # The newest price may mean something else now; older ones were decided in their time.
    newest = exact.groupby("coin").last()
    mark_work(connection, "detection", currency, _times(newest.loc[newest["source"] == "live", "ts"]))


def _times(by_coin: "pd.Series[pd.Timestamp]") -> dict[str, datetime]:
    return {str(coin): moment.to_pydatetime() for coin, moment in by_coin.items()}


def compute_rolling_statistics(app: "App") -> dict[str, int]:
    """Compute the statistics of new prices, and again those of every later row.

    Returns:
        Computed rows by coin.
    """
    computed: dict[str, int] = {}
    with app.warehouse.begin() as connection:
        for currency, since in pending_work(connection, "statistics").items():
            history = read_history(connection, currency, since, CONTEXT)
            statistics = compute_statistics(history, since, app.rules)
            store_statistics(connection, currency, statistics, history)
            computed |= {str(coin): int(rows) for coin, rows in statistics["coin"].value_counts().items()}
            clear_work(connection, "statistics", currency, since)
    log.info("rows computed: %s", computed)
    return computed
