"""The tables of the warehouse (contract, section 7), as queries see them; migrations/ brings a database there."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Double,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.types import TypeEngine

from coinwatch.times import format_time, parse_time


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC time: ``timestamptz`` on PostgreSQL, ISO 8601 text ending in ``Z`` on SQLite (it sorts as time)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """SQLite has no time type: text."""
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """To the database; a time without a zone is a bug of the caller."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"time {value} has no zone")
        return format_time(value) if dialect.name == "sqlite" else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """From the database."""
        if value is None:
            return None
        return parse_time(value) if dialect.name == "sqlite" else value.astimezone(UTC)


class Amount(TypeDecorator[Decimal]):
    """A number of the API: exact ``numeric`` on PostgreSQL; on SQLite a float, for want of decimals.

    The digits as the API wrote them stand in ``raw_prices`` on both.
    """

    impl = Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """SQLite has no decimals: a float."""
        return dialect.type_descriptor(Double() if dialect.name == "sqlite" else Numeric(asdecimal=True))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        """To the database."""
        return float(value) if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:  # noqa: ARG002 - SQLAlchemy's signature
        """From the database; the shortest decimal that is the float."""
        return Decimal(repr(value)) if isinstance(value, float) else value


VERSION = "0005"
"""The newest migration: what a warehouse has when it has these tables."""

metadata = MetaData()

raw_prices = Table(
    "raw_prices",
    metadata,
    Column("coin", Text, comment="CoinGecko id, such as bitcoin"),
    Column("currency", Text, comment="quote currency, such as usd"),
    Column("ts", UtcTime, comment="as-of time of a live pull, full hour of history"),
    Column("source", Text, comment="live or history"),
    Column("price", Text, nullable=False, comment="in the quote currency"),
    Column("market_cap", Text, nullable=False, comment="in the quote currency"),
    Column("volume_24h", Text, nullable=False, comment="traded in 24 hours, in the quote currency"),
    Column("change_24h_pct", Text, nullable=False, comment="the provider's own; nothing is computed from it"),
    Column("last_updated_at", Text, nullable=False, comment="the provider's time of the price, ISO 8601"),
    Column("fetched_at", Text, nullable=False, comment="when it was asked for, ISO 8601"),
    Column("snapshot", Text, nullable=False, comment="archived answer that the line was taken from"),
    PrimaryKeyConstraint("coin", "currency", "ts", "source"),
    Index("raw_prices_ts", "ts"),
    comment="The raw logs, line for line, as text: every digit as the API wrote it; empty is unknown",
)

prices = Table(
    "prices",
    metadata,
    Column("coin", Text, comment="CoinGecko id, such as bitcoin"),
    Column("currency", Text, comment="quote currency, such as usd"),
    Column("ts", UtcTime, comment="as-of time of a live pull, full hour of history"),
    Column("price", Amount, nullable=False, comment="in the quote currency, exact"),
    Column("market_cap", Amount, comment="in the quote currency; null is unknown"),
    Column("volume_24h", Amount, comment="traded in 24 hours, in the quote currency; null is unknown"),
    Column("source", Text, nullable=False, comment="live or history; where both exist, live stands here"),
    Column("last_updated_at", UtcTime, comment="the provider's time of the price; null is unknown"),
    Column("fetched_at", UtcTime, comment="when it was asked for; null is unknown"),
    Column("snapshot", Text, nullable=False, comment="archived answer that the price was taken from"),
    PrimaryKeyConstraint("coin", "currency", "ts"),
    Index("prices_ts", "ts"),
    comment="One price for each coin, currency and time",
)

price_statistics = Table(
    "price_statistics",
    metadata,
    Column("coin", Text, comment="CoinGecko id, such as bitcoin"),
    Column("currency", Text, comment="quote currency, such as usd"),
    Column("ts", UtcTime, comment="that of the price"),
    Column("price", Amount, nullable=False, comment="in the quote currency, exact"),
    Column("points_24h", Integer, nullable=False, comment="rows in the window (ts - 24 h, ts]"),
    Column("rolling_mean_24h", Double, nullable=False, comment="mean of that window"),
    Column("rolling_std_24h", Double, comment="sample standard deviation of that window; null below 2 points"),
    Column("zscore_24h", Double, comment="against the window (ts - 24 h, ts); null below 12 points or without spread"),
    Column("change_1h_pct", Double, comment="against the price nearest to ts - 1 h, +-30 min; null if there is none"),
    Column("change_24h_pct", Double, comment="against the price nearest to ts - 24 h, +-1 h; null if there is none"),
    Column("sigma_1h_pct", Double, comment="the coin's usual 1-hour move after this row, in percent"),
    Column("sigma_samples", Integer, nullable=False, comment="moves that sigma has learned from"),
    Column("sigma_variance", Double, nullable=False, comment="sigma squared, of log returns: what the next row needs"),
    PrimaryKeyConstraint("coin", "currency", "ts"),
    Index("price_statistics_ts", "ts"),
    comment="What each price meant when seen with those before it; rebuilt from prices at any time",
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", Text, primary_key=True, comment="made of rule, coin, currency and ts: the same finding, the same id"),
    Column("coin", Text, nullable=False, comment="CoinGecko id, such as bitcoin"),
    Column("currency", Text, nullable=False, comment="quote currency, such as usd"),
    Column("rule", Text, nullable=False, comment="move_1h or move_24h"),
    Column("severity", Text, nullable=False, comment="warning, or critical from twice the threshold on"),
    Column("state", Text, nullable=False, comment="firing"),
    Column("ts", UtcTime, nullable=False, comment="time of the price that raised it"),
    Column("value", Double, nullable=False, comment="the move in percent"),
    Column("threshold", Double, nullable=False, comment="the move that the rule allows, in percent"),
    Column("message", Text, nullable=False, comment="what people read, in one line"),
    Column("raised_at", UtcTime, nullable=False, comment="when it was decided"),
    Column("delivered_at", UtcTime, comment="null until Slack has taken it"),
    Column("delivery", Text, nullable=False, comment="pending, not_configured or delivered"),
    Column("delivery_error", Text, comment="why the last try failed; null if it did not"),
    Column("run_id", Text, nullable=False, comment="run of process_prices that raised it"),
    Index("alerts_coin_rule_ts", "coin", "currency", "rule", "ts"),
    Index("alerts_delivery", "delivery"),
    comment="Market alerts: decided and stored first, delivered after",
)

log_positions = Table(
    "log_positions",
    metadata,
    Column("log", Text, primary_key=True, comment="the log's name: a coin's raw CSV, or the archive's manifest"),
    Column("position", BigInteger, nullable=False, comment="bytes read so far: the end of a whole line"),
    Column("tail_length", Integer, nullable=False, comment="bytes before the position that tail_sha256 is of"),
    Column("tail_sha256", Text, nullable=False, comment="tells whether what was read has been changed since"),
    comment="How far each log has been read",
)

pending_work = Table(
    "pending_work",
    metadata,
    Column("step", Text, comment="statistics, detection or export"),
    Column("coin", Text, comment="CoinGecko id, such as bitcoin"),
    Column("currency", Text, comment="quote currency, such as usd"),
    Column("since", UtcTime, nullable=False, comment="the step has to do its work again from this time on"),
    PrimaryKeyConstraint("step", "coin", "currency"),
    comment="What one step of process_prices has left for the next; stored together with what caused it",
)

pending_uploads = Table(
    "pending_uploads",
    metadata,
    Column("layer", Text, comment="raw or processed"),
    Column("hour", UtcTime, comment="data hour whose S3 partition may have changed"),
    PrimaryKeyConstraint("layer", "hour"),
    comment="S3 partitions to look at; stored together with what changed them",
)

s3_objects = Table(
    "s3_objects",
    metadata,
    Column("bucket", Text, comment="S3 bucket"),
    Column("key", Text, comment="with the prefix"),
    Column("sha256", Text, nullable=False, comment="of the content that was uploaded last"),
    Column("uploaded_at", UtcTime, nullable=False, comment="when that was"),
    PrimaryKeyConstraint("bucket", "key"),
    comment="What S3 has: the ledger that lets the next run heal an outage",
)
