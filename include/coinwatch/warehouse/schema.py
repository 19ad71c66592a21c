"""The tables of the warehouse (contract, section 7); `migrations/` creates and upgrades them."""

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
        """Return text for SQLite, which has no type for times."""
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Convert a value for the database; a time without a zone is refused."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"time {value} has no zone")
        return format_time(value) if dialect.name == "sqlite" else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Convert a value from the database."""
        if value is None:
            return None
        return parse_time(value) if dialect.name == "sqlite" else value.astimezone(UTC)


class Amount(TypeDecorator[Decimal]):
    """A number of the API: exact ``numeric`` on PostgreSQL, a float on SQLite; ``raw_prices`` has the API's digits."""

    impl = Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return a float for SQLite, which has no decimals."""
        return dialect.type_descriptor(Double() if dialect.name == "sqlite" else Numeric(asdecimal=True))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        """Convert a value for the database."""
        return float(value) if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Convert a value from the database: the shortest decimal that equals the float."""
        return Decimal(repr(value)) if isinstance(value, float) else value


VERSION = "0001"
"""The newest migration: it creates these tables."""

metadata = MetaData()

raw_prices = Table(
    "raw_prices",
    metadata,
    Column("coin", Text, comment="CoinGecko id, such as bitcoin"),
    Column("currency", Text, comment="quote currency, such as usd"),
    Column("ts", UtcTime, comment="as-of time of a live poll, full hour of history"),
    Column("source", Text, comment="live or history"),
    Column("price", Text, nullable=False, comment="in the quote currency"),
    Column("market_cap", Text, nullable=False, comment="in the quote currency"),
    Column("volume_24h", Text, nullable=False, comment="traded in 24 hours, in the quote currency"),
    Column("change_24h_pct", Text, nullable=False, comment="the provider's own; nothing is computed from it"),
    Column("last_updated_at", Text, nullable=False, comment="the provider's time of the price, ISO 8601"),
    Column("fetched_at", Text, nullable=False, comment="when the response was received, ISO 8601"),
    Column("snapshot", Text, nullable=False, comment="the snapshot that contains it"),
    PrimaryKeyConstraint("coin", "currency", "ts", "source"),
    Index("raw_prices_ts", "ts"),
    comment="The raw logs, line for line, as text: every digit as the API wrote it; empty is unknown",
    sqlite_with_rowid=False,
)

prices = Table(
    "prices",
    metadata,
    Column("coin", Text, comment="CoinGecko id, such as bitcoin"),
    Column("currency", Text, comment="quote currency, such as usd"),
    Column("ts", UtcTime, comment="as-of time of a live poll, full hour of history"),
    Column("price", Amount, nullable=False, comment="in the quote currency, exact"),
    Column("market_cap", Amount, comment="in the quote currency; null is unknown"),
    Column("volume_24h", Amount, comment="traded in 24 hours, in the quote currency; null is unknown"),
    Column("source", Text, nullable=False, comment="live or history; live where both exist"),
    Column("last_updated_at", UtcTime, comment="the provider's time of the price; null is unknown"),
    Column("fetched_at", UtcTime, comment="when the response was received; null is unknown"),
    Column("snapshot", Text, nullable=False, comment="the snapshot that contains it"),
    PrimaryKeyConstraint("coin", "currency", "ts"),
    Index("prices_ts", "ts"),
    comment="One price for each coin, currency and time",
    sqlite_with_rowid=False,
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
    Column("sigma_1h_pct", Double, comment="the coin's typical 1-hour move after this row, in percent"),
    Column("sigma_samples", Integer, nullable=False, comment="moves that sigma has learned from"),
    Column("sigma_variance", Double, nullable=False, comment="sigma squared, of log returns: what the next row needs"),
    Column(
        "reference_1h_ts", UtcTime, comment="price nearest to ts - 1 h, or of a late poll the one before; else null"
    ),
    Column("reference_1h_price", Double, comment="that price; rule move_1h compares with it"),
    Column("reference_24h_ts", UtcTime, comment="price nearest to ts - 24 h, +-1 h; null if there is none"),
    Column("reference_24h_price", Double, comment="that price; rule move_24h compares with it"),
    Column("prior_variance", Double, comment="sigma_variance before this row, which judges it; null in the warm-up"),
    Column("reverts_ts", UtcTime, comment="the price before, if it was a spike that this one takes back; else null"),
    Column("unchanged_since", UtcTime, comment="first live poll in a row with exactly this price; null for history"),
    Column("unchanged_polls", Integer, comment="live polls in a row with exactly this price; null for history"),
    PrimaryKeyConstraint("coin", "currency", "ts"),
    Index("price_statistics_ts", "ts"),
    comment="Statistics of each price against the prices before it; rebuilt from prices at any time",
    sqlite_with_rowid=False,
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", Text, primary_key=True, comment="made of rule, coin, currency, state and ts"),
    Column("coin", Text, nullable=False, comment="CoinGecko id, such as bitcoin"),
    Column("currency", Text, nullable=False, comment="quote currency, such as usd"),
    Column("rule", Text, nullable=False, comment="move_1h, move_24h, or another one of the rules file"),
    Column("severity", Text, nullable=False, comment="warning, or critical from twice the threshold on"),
    Column("state", Text, nullable=False, comment="of the incident: firing, worse, resolved or corrected"),
    Column("ts", UtcTime, nullable=False, comment="time of the price that raised it"),
    Column("value", Double, comment="the move in percent; null if it is about no move"),
    Column("threshold", Double, comment="the move that fires the rule, in percent; null if none"),
    Column("message", Text, nullable=False, comment="the sentence of the notification"),
    Column("raised_at", UtcTime, nullable=False, comment="when it was decided"),
    Column("delivered_at", UtcTime, comment="null until Slack accepted it"),
    Column("delivery", Text, nullable=False, comment="pending, not_configured, delivered, silenced, held or refused"),
    Column("delivery_error", Text, comment="why it is not delivered; null if it is"),
    Column("run_id", Text, nullable=False, comment="run of process_prices that raised it"),
    Column("incident_id", Text, comment="the incident that it is a transition of"),
    Column("message_id", Text, comment="the Slack message that contains it, alone or in a batch"),
    Index("alerts_coin_rule_ts", "coin", "currency", "rule", "ts"),
    Index("alerts_delivery", "delivery"),
    Index("alerts_incident", "incident_id"),
    comment="Market alerts and their delivery to Slack (the outbox)",
)

log_positions = Table(
    "log_positions",
    metadata,
    Column("log", Text, primary_key=True, comment="raw:<coin>, or manifest:<bucket and prefix>"),
    Column("position", BigInteger, nullable=False, comment="bytes read; the end of a whole line"),
    Column("tail_length", Integer, nullable=False, comment="bytes before the position that are hashed"),
    Column("tail_sha256", Text, nullable=False, comment="their SHA-256: shows whether the log was changed"),
    comment="How far each log has been read",
)

pending_work = Table(
    "pending_work",
    metadata,
    Column("step", Text, comment="statistics, detection or export"),
    Column("coin", Text, comment="CoinGecko id, such as bitcoin"),
    Column("currency", Text, comment="quote currency, such as usd"),
    Column("since", UtcTime, nullable=False, comment="the step has to process rows from this time on"),
    Column("context_since", UtcTime, nullable=False, comment="25 hours before: where the windows of those rows begin"),
    PrimaryKeyConstraint("step", "coin", "currency"),
    comment="Work that one step of process_prices leaves for the next; stored with the rows that cause it",
)

pending_uploads = Table(
    "pending_uploads",
    metadata,
    Column("layer", Text, comment="raw or processed"),
    Column("hour", UtcTime, comment="hour of the rows in the S3 partition"),
    PrimaryKeyConstraint("layer", "hour"),
    comment="S3 partitions that may have changed; stored with the rows that change them",
)

s3_objects = Table(
    "s3_objects",
    metadata,
    Column("bucket", Text, comment="S3 bucket"),
    Column("key", Text, comment="of a raw or processed partition, with the prefix"),
    Column("sha256", Text, nullable=False, comment="of the content that was uploaded last"),
    Column("uploaded_at", UtcTime, nullable=False, comment="when that was"),
    PrimaryKeyConstraint("bucket", "key"),
    comment="SHA-256 of each partition that S3 has: what differs is uploaded by the next run",
)

gaps = Table(
    "gaps",
    metadata,
    Column("coin", Text, comment="CoinGecko id, such as bitcoin"),
    Column("currency", Text, comment="quote currency, such as usd"),
    Column("first_hour", UtcTime, comment="the first full hour that is missing"),
    Column("last_hour", UtcTime, nullable=False, comment="the gap is the full hours from first_hour to this one"),
    Column("state", Text, nullable=False, comment="open, filled, no_data (CoinGecko has none) or beyond_plan"),
    Column("found_at", UtcTime, nullable=False, comment="when the hours were found to be missing"),
    Column("tries", Integer, nullable=False, comment="answered requests for these hours"),
    Column("retry_at", UtcTime, comment="no request before; null if the next run requests them"),
    Column("filled_at", UtcTime, comment="when the raw log got the hours; null until then"),
    Column("snapshot", Text, nullable=False, comment="archived answer of the newest try; empty before the first"),
    Column("reason", Text, nullable=False, comment="why there is no price; empty unless no_data or beyond_plan"),
    PrimaryKeyConstraint("coin", "currency", "first_hour"),
    Index("gaps_state", "state"),
    comment="Hours that the raw logs did not have, and what became of them; a row for each run of hours",
)

checked_hours = Table(
    "checked_hours",
    metadata,
    Column("coin", Text, comment="CoinGecko id, such as bitcoin"),
    Column("currency", Text, comment="quote currency, such as usd"),
    Column("since", UtcTime, nullable=False, comment="the first hour that was checked"),
    Column("until", UtcTime, nullable=False, comment="hours before this were checked"),
    PrimaryKeyConstraint("coin", "currency"),
    comment="Hours that find_gaps has checked: those that the raw log does not have are in gaps",
)

api_requests = Table(
    "api_requests",
    metadata,
    Column("day", UtcTime, comment="midnight, UTC"),
    Column("endpoint", Text, comment="prices or history"),
    Column("requests", Integer, nullable=False, comment="sent on that day, whatever the answer: errors count too"),
    PrimaryKeyConstraint("day", "endpoint"),
    comment="Requests to CoinGecko, which its plans limit by month",
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("coin", Text, comment="CoinGecko id, such as bitcoin"),
    Column("currency", Text, comment="quote currency, such as usd"),
    Column("ts", UtcTime, comment="as-of time of the poll, or full hour of history"),
    Column("source", Text, comment="live or history"),
    Column("value", Text, nullable=False, comment="as the API wrote it"),
    Column("reason", Text, nullable=False, comment="why it is quarantined"),
    Column("snapshot", Text, nullable=False, comment="the snapshot that contains it"),
    Column("state", Text, nullable=False, comment="held, released (stored as a price) or rejected"),
    Column("held_at", UtcTime, nullable=False, comment="when it was quarantined"),
    Column("decided_at", UtcTime, comment="when it was released or rejected; null while it is held"),
    Column("decided_by", Text, comment="who released or rejected it, and why; null while it is held"),
    PrimaryKeyConstraint("coin", "currency", "ts", "source"),
    Index("quarantine_state", "state"),
    comment="Quarantined values: the raw log has them, prices has not",
)

incidents = Table(
    "incidents",
    metadata,
    Column("coin", Text, comment="CoinGecko id, such as bitcoin"),
    Column("currency", Text, comment="quote currency, such as usd"),
    Column("rule", Text, comment="what opened it"),
    Column("id", Text, nullable=False, comment="the incident_id of its alerts"),
    Column("state", Text, nullable=False, comment="firing, worse, resolved or corrected; the first two are open"),
    Column("opened_at", UtcTime, nullable=False, comment="time of the price that opened it"),
    Column("changed_at", UtcTime, nullable=False, comment="time of the price of its newest transition"),
    Column("notified_at", UtcTime, nullable=False, comment="time of the price of its newest firing or worse"),
    Column("notified_move", Double, nullable=False, comment="largest move notified so far, a log return; 0 if no move"),
    Column("reference_price", Double, comment="price that it moved away from; null if it is about no move"),
    Column("acknowledged_at", UtcTime, comment="when an operator acknowledged it: no notification that it is worse"),
    Column("acknowledged_by", Text, comment="who, and why"),
    PrimaryKeyConstraint("coin", "currency", "rule"),
    comment="The newest incident of each coin and rule, open or ended",
)

silences = Table(
    "silences",
    metadata,
    Column("id", Text, primary_key=True, comment="made of coin and rule: the same ones again replace it"),
    Column("coin", Text, nullable=False, comment="a CoinGecko id, or * for all"),
    Column("rule", Text, nullable=False, comment="a rule, * for all of them, or the key of a pipeline issue"),
    Column("until", UtcTime, nullable=False, comment="when it ends"),
    Column("reason", Text, nullable=False, comment="why, in words"),
    Column("created_at", UtcTime, nullable=False, comment="when it was set"),
    comment="Alerts and pipeline issues that are stored and not sent until a time",
)

pipeline_issues = Table(
    "pipeline_issues",
    metadata,
    Column("key", Text, primary_key=True, comment="names the issue: stale, uploads, task:ingest_prices.fetch_prices"),
    Column("state", Text, nullable=False, comment="open or resolved"),
    Column("title", Text, nullable=False, comment="the issue in a few words"),
    Column("detail", Text, nullable=False, comment="what happened, as last reported"),
    Column("action", Text, nullable=False, comment="what to do"),
    Column("link", Text, comment="the page to look at; null if there is none"),
    Column("coins", Text, nullable=False, comment="the coins it concerns, comma-separated; empty if none"),
    Column("opened_at", UtcTime, nullable=False, comment="when it was first reported"),
    Column("seen_at", UtcTime, nullable=False, comment="when it was last reported"),
    Column("seen_count", Integer, nullable=False, comment="reports since it was opened"),
    Column("resolved_at", UtcTime, comment="null while it is open"),
    Column("notify_after", UtcTime, nullable=False, comment="operators are not notified before: its grace period"),
    Column("notified_state", Text, comment="the state that operators know; null if they were never notified"),
    Column("notified_at", UtcTime, comment="when they were last notified; null if not, or if coins were added since"),
    Column("acknowledged_at", UtcTime, comment="when an operator acknowledged it: no more reminders"),
    Column("acknowledged_by", Text, comment="who, and why"),
    Column("delivery_error", Text, comment="why the last notification was not delivered; null if it was"),
    Index("pipeline_issues_state", "state"),
    comment="What is wrong with the pipeline itself, one row for each issue",
)

rate_limits = Table(
    "rate_limits",
    metadata,
    Column("name", Text, primary_key=True, comment="coingecko, or slack:<fingerprint of the webhook>"),
    Column("next_at", UtcTime, comment="the earliest time of the next request; null if any time"),
    Column("retry_at", UtcTime, comment="no request before: a response had Retry-After; null if none had"),
    comment="Request pacing shared by all workers",
)
