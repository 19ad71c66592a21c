"""How do things stand? One answer, for the first hour's report and the command line."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import BaseModel
from sqlalchemy import Connection, Row, func, select

from coinwatch.settings import Settings
from coinwatch.times import format_time
from coinwatch.warehouse import schema

if TYPE_CHECKING:
    from coinwatch.app import App


class CoinStatus(BaseModel):
    """One coin in the warehouse.

    Attributes:
        coin: CoinGecko id.
        currency: Quote currency.
        rows: Prices stored.
        first: Time of the oldest one; none without any.
        last: Time of the newest one.
        price: Its price as of the run; none if that is not there. The statistics are of this row.
        source: ``live`` or ``history``.
        points_24h: As in the contract, section 5; likewise the rest.
    """

    coin: str
    currency: str
    rows: int
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


class Status(BaseModel):
    """What a run has come to.

    Attributes:
        as_of: The run's as-of time.
        coins: In the order of the settings.
        alerts: Of the last 24 hours, newest first.
        objects: What S3 has, by layer.
        left: What is still to be taken in, computed or uploaded; each a sentence.
    """

    as_of: datetime | None
    simulated: bool
    coins: list[CoinStatus]
    alerts: list[AlertStatus]
    objects: dict[str, int]
    left: list[str]
    issues: list[IssueStatus] = []

    @property
    def without_price(self) -> list[str]:
        """The coins that have no row as of the run."""
        return [coin.coin for coin in self.coins if coin.price is None]


def read(app: "App", as_of: datetime | None = None) -> Status:
    """Read the warehouse.

    Args:
        app: The collaborators.
        as_of: The prices of this time; without it, each coin's newest.
    """
    settings = app.settings
    with app.warehouse.begin() as connection:
        return Status(
            as_of=as_of,
            simulated=app.simulated,
            coins=[_coin(connection, settings.currency, coin, as_of) for coin in settings.coins],
            alerts=_alerts(connection, (as_of or app.clock()) - timedelta(hours=24)),
            objects=_objects(connection, settings),
            left=_unread(connection, settings) + _unfinished(connection, settings),
        )


def _coin(connection: Connection, currency: str, coin: str, as_of: datetime | None) -> CoinStatus:
    stored, statistics = schema.prices, schema.price_statistics
    rows, first, last = connection.execute(
        select(func.count(), func.min(stored.c.ts), func.max(stored.c.ts)).where(
            stored.c.coin == coin, stored.c.currency == currency
        )
    ).one()
    row = connection.execute(
        select(statistics, stored.c.source)
        .join_from(
            statistics,
            stored,
            (stored.c.coin == statistics.c.coin)
            & (stored.c.currency == statistics.c.currency)
            & (stored.c.ts == statistics.c.ts),
        )
        .where(statistics.c.coin == coin, statistics.c.currency == currency, statistics.c.ts == (as_of or last))
    ).one_or_none()
    report = CoinStatus(coin=coin, currency=currency, rows=rows, first=first, last=last)
    return report if row is None else report.model_copy(update=_statistics(row))


def _statistics(row: "Row[tuple[object, ...]]") -> dict[str, object]:
    names = CoinStatus.model_fields.keys() & row._mapping.keys() - {"coin", "currency"}  # noqa: SLF001 - SQLAlchemy's public name
    return {name: row._mapping[name] for name in names} | {"price": float(row._mapping["price"])}  # noqa: SLF001 - likewise


def _alerts(connection: Connection, since: datetime) -> list[AlertStatus]:
    table = schema.alerts
    query = select(table).where(table.c.raised_at >= since).order_by(table.c.raised_at.desc(), table.c.id)
    return [
        AlertStatus(
            severity=row.severity, message=row.message, delivery=row.delivery, delivery_error=row.delivery_error
        )
        for row in connection.execute(query)
    ]


def _objects(connection: Connection, settings: Settings) -> dict[str, int]:
    table = schema.s3_objects
    prefix = f"{settings.s3_prefix}/" if settings.s3_prefix else ""
    return {
        layer: connection.execute(
            select(func.count()).where(
                table.c.bucket == settings.s3_bucket, table.c.key.startswith(f"{prefix}{layer}/", autoescape=True)
            )
        ).scalar_one()
        for layer in ("raw", "processed", "archive")
    }


def _unread(connection: Connection, settings: Settings) -> list[str]:
    """What stands in the raw logs and not yet in the warehouse."""
    table = schema.log_positions
    read = {row.log: row.position for row in connection.execute(select(table.c.log, table.c.position))}
    left = []
    for coin in settings.coins:
        path = settings.raw_path(coin)
        unread = (path.stat().st_size if path.exists() else 0) - read.get(f"raw:{coin}", 0)
        if unread > 0:
            left.append(f"{unread} bytes of {path} are not in the warehouse")
    return left


def _unfinished(connection: Connection, settings: Settings) -> list[str]:
    work = schema.pending_work
    left = [
        f"the step {row.step} has work to do for {row.coin} from {format_time(row.since)} on"
        for row in connection.execute(select(work).order_by(work.c.step, work.c.coin))
    ]
    partitions = connection.execute(select(func.count()).select_from(schema.pending_uploads)).scalar_one()
    if settings.s3_bucket and partitions:
        left.append(f"{partitions} S3 partitions are not uploaded")
    return left
