"""The status: what the warehouse and the files have, and what is left to do, for `watch_feed` and the commands."""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from sqlalchemy import Connection, Row, Text, column, func, select, values

from coinwatch.coingecko.requests import Budget, budget
from coinwatch.errors import CoinwatchError
from coinwatch.health import issues
from coinwatch.settings import Settings
from coinwatch.times import format_time
from coinwatch.warehouse import schema

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

NAMES_SHOWN = 5

_a = schema.alerts.c
_p = schema.prices.c
_w = schema.pending_work.c


class CoinStatus(BaseModel):
    """One coin: how many prices are stored from when to when, and price and statistics at the as-of time, if any."""

    coin: str
    currency: str
    rows: int = 0
    first: datetime | None = None
    last: datetime | None = None
    price: float | None = None
    source: str | None = None
    points_24h: int | None = None
    rolling_mean_24h: float | None = None
    rolling_std_24h: float | None = None
    zscore_24h: float | None = None
    change_1h_pct: float | None = None
    change_24h_pct: float | None = None
    sigma_1h_pct: float | None = None


class AlertStatus(BaseModel):
    """An alert of the last day."""

    severity: str
    message: str
    delivery: str
    delivery_error: str | None


class IssueStatus(BaseModel):
    """An open pipeline issue."""

    key: str
    title: str
    detail: str
    action: str
    link: str | None
    opened_at: datetime


class Status(BaseModel):
    """How things stand.

    Attributes:
        at: When it was read.
        as_of: The time of the coins' prices; None: the newest of each.
        alerts: Of the last 24 hours, newest first.
        objects: How many objects S3 has, by layer; two of each snapshot.
        left: Work that is left, a sentence each.
        issues: Open ones past their grace period, oldest first.
        budget: This month's requests; None if the connection to CoinGecko is wrong.
    """

    at: datetime
    as_of: datetime | None
    simulated: bool
    coins: list[CoinStatus]
    alerts: list[AlertStatus]
    objects: dict[str, int]
    left: list[str]
    issues: list[IssueStatus]
    budget: Budget | None

    @property
    def without_price(self) -> list[str]:
        """The coins that have no price at the as-of time."""
        return [coin.coin for coin in self.coins if coin.price is None]


def read(app: "App", as_of: datetime | None = None) -> Status:
    """Return how things stand, with the prices of an as-of time or else the newest price of each coin."""
    now, settings = app.clock(), app.settings
    # In a transaction of its own.
    requests = read_budget(app)
    day_ago = (as_of or now) - timedelta(hours=24)
    recent = select(schema.alerts).where(_a.raised_at >= day_ago).order_by(_a.raised_at.desc(), _a.id)
    with app.warehouse.begin() as connection:
        alerts, found = connection.execute(recent).all(), issues.open_issues(connection)
        return Status(
            at=now,
            as_of=as_of,
            simulated=app.simulated,
            coins=_coins(connection, settings, as_of),
            alerts=[AlertStatus.model_validate(row, from_attributes=True) for row in alerts],
            objects=_objects(connection, settings),
            left=_left(connection, settings),
            issues=[
                # Within its grace period an issue may still resolve by itself.
                IssueStatus.model_validate(row, from_attributes=True)
                for row in found
                if row.notify_after <= now
            ],
            budget=requests,
        )


def read_budget(app: "App") -> Budget | None:
    """Return this month's requests to CoinGecko; None if the connection to CoinGecko is wrong."""
    try:
        return budget(app)
    except CoinwatchError as error:
        log.warning("no request budget: %s", error)
        return None


def newest_prices(connection: Connection, settings: Settings) -> dict[str, datetime]:
    """Return the time of the newest price of each coin that has one: one lookup in the index for each."""
    coins = values(column("coin", Text), name="coins").data([(coin,) for coin in settings.coins]).cte("coins")
    newest = select(func.max(_p.ts)).where(_p.coin == coins.c.coin, _p.currency == settings.currency)
    rows = connection.execute(select(coins.c.coin, newest.scalar_subquery().label("ts")))
    return {row.coin: row.ts for row in rows if row.ts is not None}


def undelivered(connection: Connection) -> Row[Any]:
    """Return how many alerts Slack does not have yet.

    Returns:
        ``pending`` and ``not_configured``: the numbers of alerts; ``oldest`` and ``error``: of the pending ones.
    """
    pending = _a.delivery == "pending"
    query = select(
        func.count().filter(pending).label("pending"),
        func.min(_a.raised_at).filter(pending).label("oldest"),
        func.max(_a.delivery_error).filter(pending).label("error"),
        func.count().filter(_a.delivery == "not_configured").label("not_configured"),
    )
    return connection.execute(query.where(_a.delivery.in_(("pending", "not_configured")))).one()


def upload_backlog(connection: Connection, settings: Settings) -> str:
    """Return what S3 does not have yet; empty if nothing is left, or without a bucket."""
    if not settings.s3_bucket:
        return ""
    partitions = connection.execute(select(func.count()).select_from(schema.pending_uploads)).scalar_one()
    manifest = _manifest(settings)
    unread = (manifest.stat().st_size if manifest.exists() else 0) - _uploaded_up_to(connection, settings)
    counts = ((partitions, "partitions"), (unread, "bytes of the archive's manifest"))
    return " and ".join(f"{count:,} {what}" for count, what in counts if count > 0)


def named(names: Sequence[str]) -> str:
    """Return names for a sentence: the first few, and how many more there are."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _coins(connection: Connection, settings: Settings, as_of: datetime | None) -> list[CoinStatus]:
    counts = select(_p.coin, func.count().label("rows"), func.min(_p.ts).label("first"), func.max(_p.ts).label("last"))
    counts = counts.where(_p.currency == settings.currency).group_by(_p.coin)
    stored = {row.coin: row._asdict() for row in connection.execute(counts)}
    s = schema.price_statistics.c
    same = (s.coin == _p.coin) & (s.currency == _p.currency) & (s.ts == _p.ts)
    # The columns of both tables have the same values.
    query = select(schema.price_statistics, _p.source).join_from(schema.prices, schema.price_statistics, same)
    query = query.where(_p.currency == settings.currency)
    if as_of is not None:
        query = query.where(_p.ts == as_of)
    else:
        newest = counts.subquery()
        query = query.join(newest, (newest.c.coin == _p.coin) & (newest.c.last == _p.ts))
    priced = {row.coin: row._asdict() for row in connection.execute(query)}
    return [
        CoinStatus.model_validate(
            {"coin": coin, "currency": settings.currency, **stored.get(coin, {}), **priced.get(coin, {})}
        )
        for coin in settings.coins
    ]


def _objects(connection: Connection, settings: Settings) -> dict[str, int]:
    o = schema.s3_objects.c
    raw, processed = (
        func.count().filter(o.key.startswith(f"{_prefix(settings)}{layer}/", autoescape=True))
        for layer in ("raw", "processed")
    )
    row = connection.execute(select(raw, processed).where(o.bucket == settings.s3_bucket)).one()
    return {"raw": row[0], "processed": row[1], "archive": 2 * _uploaded_snapshots(connection, settings)}


def _uploaded_snapshots(connection: Connection, settings: Settings) -> int:
    """Count the manifest's lines up to the position of the upload: one for each snapshot, a few megabytes in a year."""
    left, lines = _uploaded_up_to(connection, settings), 0
    if left and _manifest(settings).exists():
        with _manifest(settings).open("rb") as file:
            while block := file.read(min(left, 1 << 20)):
                left, lines = left - len(block), lines + block.count(b"\n")
    return lines


def _uploaded_up_to(connection: Connection, settings: Settings) -> int:
    """Return the byte of the manifest up to which S3 has all snapshots."""
    return _positions(connection).get(f"manifest:{_prefix(settings)}{settings.s3_bucket}", 0)


def _manifest(settings: Settings) -> Path:
    return settings.archive_path / "manifest.jsonl"


def _prefix(settings: Settings) -> str:
    return f"{settings.s3_prefix}/" if settings.s3_prefix else ""


def _positions(connection: Connection) -> dict[str, int]:
    table = schema.log_positions
    return {row.log: row.position for row in connection.execute(select(table.c.log, table.c.position))}


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _left(connection: Connection, settings: Settings) -> list[str]:
    read, left = _positions(connection), []
    for coin in settings.coins:
        path = settings.raw_path(coin)
        unread = _size(path) - read.get(f"raw:{coin}", 0)
        if unread > 0:
            left.append(f"{unread:,} bytes of {path} are not in the warehouse")
    work = connection.execute(select(schema.pending_work).order_by(_w.step, _w.since, _w.coin))
    for step, group in groupby(work, lambda row: row.step):
        rows = list(group)
        left.append(f"{step}: work is left for {named([row.coin for row in rows])}, from {format_time(rows[0].since)}")
    backlog = upload_backlog(connection, settings)
    return [*left, f"{backlog} are not in S3"] if backlog else left
