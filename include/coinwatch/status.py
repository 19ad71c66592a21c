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
    now = app.clock()
    # In a transaction of its own.
    requests = read_budget(app)
    day_ago = (as_of or now) - timedelta(hours=24)
    recent = select(schema.alerts).where(_a.raised_at >= day_ago).order_by(_a.raised_at.desc(), _a.id)
    with app.warehouse.begin() as connection:
        # Within its grace period an issue may still resolve by itself.
        found = [row for row in issues.open_issues(connection) if row.notify_after <= now]
        return Status(
            at=now,
            as_of=as_of,
            simulated=app.simulated,
            coins=_coins(connection, app.settings, as_of),
            alerts=[AlertStatus.model_validate(row, from_attributes=True) for row in connection.execute(recent)],
            objects=_objects(connection, app.settings),
            left=_left(connection, app.settings),
            issues=[IssueStatus.model_validate(row, from_attributes=True) for row in found],
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
    """Count the alerts that are ``pending`` or ``not_configured``; ``oldest`` and ``error`` are of the pending ones."""
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
    unread = _size(_manifest(settings)) - _uploaded_up_to(connection, settings)
    counts = ((partitions, "partitions"), (unread, "bytes of the archive's manifest"))
    return " and ".join(f"{count:,} {what}" for count, what in counts if count > 0)


def named(names: Sequence[str]) -> str:
    """Return names for a sentence: the first few, and how many more there are."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _coins(connection: Connection, settings: Settings, as_of: datetime | None) -> list[CoinStatus]:
    s = schema.price_statistics.c
    stored = (
        select(_p.coin, func.count().label("rows"), func.min(_p.ts).label("first"), func.max(_p.ts).label("last"))
        .where(_p.currency == settings.currency)
        .group_by(_p.coin)
        .subquery()
    )
    priced = schema.prices.join(
        schema.price_statistics, (s.coin == _p.coin) & (s.currency == _p.currency) & (s.ts == _p.ts)
    )
    moment = (_p.coin == stored.c.coin) & (_p.currency == settings.currency) & (_p.ts == (as_of or stored.c.last))
    statistics = [s[name] for name in CoinStatus.model_fields if name in s and name not in ("coin", "currency")]
    query = select(stored, _p.source, *statistics).select_from(stored.outerjoin(priced, moment))
    found = {row.coin: row._asdict() for row in connection.execute(query)}
    empty = {"currency": settings.currency}
    return [CoinStatus.model_validate(empty | {"coin": coin} | found.get(coin, {})) for coin in settings.coins]


def _objects(connection: Connection, settings: Settings) -> dict[str, int]:
    o = schema.s3_objects.c
    layers = ("raw", "processed")
    counts = [
        func.count().filter(o.key.startswith(f"{_prefix(settings)}{layer}/", autoescape=True)) for layer in layers
    ]
    row = connection.execute(select(*counts).where(o.bucket == settings.s3_bucket)).one()
    snapshots = 0
    uploaded = _uploaded_up_to(connection, settings)
    if uploaded and _manifest(settings).exists():
        # A line for each snapshot: a few megabytes in a year.
        snapshots = _manifest(settings).read_bytes()[:uploaded].count(b"\n")
    return {**dict(zip(layers, row, strict=True)), "archive": 2 * snapshots}


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


def _uploaded_up_to(connection: Connection, settings: Settings) -> int:
    """Return the byte of the manifest up to which S3 has all snapshots."""
    return _positions(connection).get(f"manifest:{_prefix(settings)}{settings.s3_bucket}", 0)


def _positions(connection: Connection) -> dict[str, int]:
    table = schema.log_positions
    return {row.log: row.position for row in connection.execute(select(table.c.log, table.c.position))}


def _prefix(settings: Settings) -> str:
    return f"{settings.s3_prefix}/" if settings.s3_prefix else ""


def _manifest(settings: Settings) -> Path:
    return settings.archive_path / "manifest.jsonl"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
