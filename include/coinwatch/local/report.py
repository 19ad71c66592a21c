"""What a run has come to: read from the warehouse, in a process that knows Airflow's connections, and written out."""

import argparse
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import BaseModel
from sqlalchemy import Connection, Engine, Row, func, select

from coinwatch.settings import Settings
from coinwatch.times import format_time, parse_time
from coinwatch.warehouse import schema

ALERTS_SHOWN = 5


class CoinReport(BaseModel):
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


class AlertReport(BaseModel):
    """An alert of the last day."""

    severity: str
    message: str
    delivery: str
    delivery_error: str | None


class Report(BaseModel):
    """What a run has come to.

    Attributes:
        as_of: The run's as-of time.
        coins: In the order of the settings.
        alerts: Of the last 24 hours, newest first.
        objects: What S3 has, by layer.
        left: What is still to be taken in, computed or uploaded; each a sentence.
    """

    as_of: datetime
    coins: list[CoinReport]
    alerts: list[AlertReport]
    objects: dict[str, int]
    left: list[str]

    @property
    def without_price(self) -> list[str]:
        """The coins that have no row as of the run."""
        return [coin.coin for coin in self.coins if coin.price is None]


def read_report(engine: Engine, settings: Settings, as_of: datetime) -> Report:
    """Read the warehouse.

    Args:
        engine: The warehouse.
        settings: What the environment decides.
        as_of: The run's as-of time.
    """
    with engine.begin() as connection:
        return Report(
            as_of=as_of,
            coins=[_coin(connection, settings.currency, coin, as_of) for coin in settings.coins],
            alerts=_alerts(connection, as_of - timedelta(hours=24)),
            objects=_objects(connection, settings),
            left=_unread(connection, settings) + _unfinished(connection, settings),
        )


def _coin(connection: Connection, currency: str, coin: str, as_of: datetime) -> CoinReport:
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
        .where(statistics.c.coin == coin, statistics.c.currency == currency, statistics.c.ts == as_of)
    ).one_or_none()
    report = CoinReport(coin=coin, currency=currency, rows=rows, first=first, last=last)
    return report if row is None else report.model_copy(update=_statistics(row))


def _statistics(row: "Row[tuple[object, ...]]") -> dict[str, object]:
    names = CoinReport.model_fields.keys() & row._mapping.keys() - {"coin", "currency"}  # noqa: SLF001 - SQLAlchemy's public name
    return {name: row._mapping[name] for name in names} | {"price": float(row._mapping["price"])}  # noqa: SLF001 - likewise


def _alerts(connection: Connection, since: datetime) -> list[AlertReport]:
    table = schema.alerts
    query = select(table).where(table.c.raised_at >= since).order_by(table.c.raised_at.desc(), table.c.id)
    return [
        AlertReport(
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


def format_report(report: Report, settings: Settings) -> str:
    """Write the report for the screen."""
    lines = [line for coin in report.coins for line in _coin_lines(coin)]
    lines += _alert_lines(report.alerts)
    lines.append(_upload_line(report.objects, settings))
    files = [path for coin in settings.coins for path in (settings.raw_path(coin), settings.processed_path(coin))]
    files.append(settings.archive_path)
    lines += [f"{'' if index else 'Files':<10}{path}" for index, path in enumerate(files)]
    return "\n".join(lines)


def _coin_lines(coin: CoinReport) -> list[str]:
    name = f"{coin.coin:<10}" if len(coin.coin) < 10 else f"{coin.coin} "
    lines = []
    if coin.first and coin.last:
        days = (coin.last - coin.first) / timedelta(days=1)
        lines.append(
            f"{name}{coin.rows:,} rows from {format_time(coin.first)} to {format_time(coin.last)} ({days:.0f} days)"
        )
    else:
        lines.append(f"{name}no rows")
    if coin.price is None:
        return [*lines, f"{'':<10}no price as of this run"]
    unit = coin.currency.upper()
    lines.append(f"{'':<10}price {_amount(coin.price)} {unit} ({coin.source})")
    lines.append(
        f"{'':<10}24 hours: {coin.points_24h} rows, mean {_amount(coin.rolling_mean_24h)}, "
        f"standard deviation {_amount(coin.rolling_std_24h)}, z-score {_number(coin.zscore_24h, '+.2f')}"
    )
    lines.append(
        f"{'':<10}change in 1 hour {_percent(coin.change_1h_pct, '+.2f')}, in 24 hours "
        f"{_percent(coin.change_24h_pct, '+.2f')}; a usual hour moves {_percent(coin.sigma_1h_pct, '.2f')}"
    )
    return lines


def _amount(value: float | None) -> str:
    return _number(value, ",.2f" if value is None or abs(value) >= 1 else ".6g")


def _percent(value: float | None, form: str) -> str:
    return "unknown" if value is None else f"{value:{form}} %"


def _number(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)


_DELIVERY = {
    "delivered": "delivered to Slack",
    "pending": "not delivered yet",
    "not_configured": "stored; Slack is not configured",
}


def _alert_lines(alerts: Sequence[AlertReport]) -> list[str]:
    if not alerts:
        return [f"{'Alerts':<10}none: no abnormal move"]
    lines = [f"{'Alerts':<10}{len(alerts)} in the last 24 hours"]
    for alert in alerts[:ALERTS_SHOWN]:
        delivery = _DELIVERY.get(alert.delivery, alert.delivery)
        reason = f" ({alert.delivery_error})" if alert.delivery_error else ""
        lines.append(f"{'':<10}{alert.severity}, {delivery}{reason}: {alert.message}")
    if len(alerts) > ALERTS_SHOWN:
        lines.append(f"{'':<10}… and {len(alerts) - ALERTS_SHOWN} more")
    return lines


def _upload_line(objects: dict[str, int], settings: Settings) -> str:
    if not settings.s3_bucket:
        return f"{'S3':<10}nothing is uploaded: COINWATCH_S3_BUCKET is empty"
    counts = ", ".join(f"{number:,} {layer}" for layer, number in objects.items())
    return f"{'S3':<10}s3://{settings.s3_bucket} has {counts} objects"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report of a run as JSON; Airflow's connections say where the warehouse is."""
    from coinwatch.app import App
    from coinwatch.settings import load_settings

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--as-of", type=parse_time, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    settings = load_settings()
    report = read_report(App(settings).warehouse, settings, options.as_of)
    options.output.write_text(report.model_dump_json(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
