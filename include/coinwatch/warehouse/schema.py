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


VERSION = "0001"
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
    Column("id", Text, primary_key=True, comment="made of rule, coin, currency, state and ts"),
    Column("coin", Text, nullable=False, comment="CoinGecko id, such as bitcoin"),
    Column("currency", Text, nullable=False, comment="quote currency, such as usd"),
    Column("rule", Text, nullable=False, comment="move_1h, move_24h, or another one of the rules file"),
    Column("severity", Text, nullable=False, comment="warning, or critical from twice the threshold on"),
    Column("state", Text, nullable=False, comment="what became of the incident: firing, worse, resolved or corrected"),
    Column("ts", UtcTime, nullable=False, comment="time of the price that raised it"),
    Column("value", Double, comment="the move in percent; null where it is about none"),
    Column("threshold", Double, comment="the move that the rule allows, in percent; null where there is none"),
    Column("message", Text, nullable=False, comment="what people read, in one line"),
    Column("raised_at", UtcTime, nullable=False, comment="when it was decided"),
    Column("delivered_at", UtcTime, comment="null until Slack has taken it"),
    Column("delivery", Text, nullable=False, comment="pending, not_configured, delivered, silenced, held or refused"),
    Column("delivery_error", Text, comment="why it was not delivered; null if it was"),
    Column("run_id", Text, nullable=False, comment="run of process_prices that raised it"),
    Column("incident_id", Text, comment="the incident that it is a turn of; null before there were incidents"),
    Column("message_id", Text, comment="the Slack message that carried it, alone or with others"),
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
    Column("found_at", UtcTime, comment="when the hours were first seen to be missing"),
    Column("last_hour", UtcTime, nullable=False, comment="the gap is the full hours from first_hour to this one"),
    Column("state", Text, nullable=False, comment="open, healed, no_data (CoinGecko has none) or beyond_plan"),
    Column("tries", Integer, nullable=False, comment="requests that asked for these hours and were answered"),
    Column("tried_at", UtcTime, comment="of the newest of them; null if there was none"),
    Column("next_try_at", UtcTime, comment="not asked for again before; null if the next run asks"),
    Column("healed_at", UtcTime, comment="when the raw log was seen to have them; null until then"),
    Column("snapshot", Text, nullable=False, comment="of the newest try, archived unless refused; empty before it"),
    Column("reason", Text, nullable=False, comment="why they could not be had, in words; empty unless so"),
    PrimaryKeyConstraint("coin", "currency", "first_hour", "found_at"),
    Index("gaps_state", "state"),
    comment="Hours that the raw logs did not have, and what became of them",
)

api_requests = Table(
    "api_requests",
    metadata,
    Column("day", UtcTime, comment="midnight, UTC"),
    Column("endpoint", Text, comment="what was asked for: prices, history or ping"),
    Column("requests", Integer, nullable=False, comment="sent on that day, whatever the answer: errors count too"),
    PrimaryKeyConstraint("day", "endpoint"),
    comment="Requests to CoinGecko, which its plans limit by month",
)

api_turns = Table(
    "api_turns",
    metadata,
    Column("api", Text, primary_key=True, comment="coingecko"),
    Column("next_at", UtcTime, nullable=False, comment="the earliest time of the next request"),
    Column("closed_until", UtcTime, comment="no request before, because an answer asked to wait; null if none did"),
    comment="Whose turn it is to ask: keeps the workers' requests apart",
)

feed_conditions = Table(
    "feed_conditions",
    metadata,
    Column("coin", Text, comment="CoinGecko id, such as bitcoin"),
    Column("currency", Text, comment="quote currency, such as usd"),
    Column("condition", Text, comment="unknown_id, no_price, bad_price, not_understood, stale or unchanged"),
    Column("since", UtcTime, comment="as-of time of the first pull that had it"),
    Column("last_seen", UtcTime, nullable=False, comment="as-of time of the newest pull that had it"),
    Column("pulls", Integer, nullable=False, comment="pulls that had it"),
    Column("ended_at", UtcTime, comment="as-of time of the first pull without it; null while it lasts"),
    Column("reason", Text, nullable=False, comment="what was missing or wrong in the newest pull, in words"),
    Column("snapshot", Text, nullable=False, comment="archived answer of that pull; empty if it was not archived"),
    PrimaryKeyConstraint("coin", "currency", "condition", "since"),
    comment="What was wrong with a coin's live price, from when to when",
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("coin", Text, comment="CoinGecko id, such as bitcoin"),
    Column("currency", Text, comment="quote currency, such as usd"),
    Column("ts", UtcTime, comment="as-of time of the pull, or full hour of history"),
    Column("source", Text, comment="live or history"),
    Column("value", Text, nullable=False, comment="as the API wrote it"),
    Column("reason", Text, nullable=False, comment="why it is held back, in words"),
    Column("snapshot", Text, nullable=False, comment="archived answer that it stands in"),
    Column("state", Text, nullable=False, comment="held, released (it is a price by now) or rejected"),
    Column("held_at", UtcTime, nullable=False, comment="when it was held back"),
    Column("decided_at", UtcTime, comment="when it was released or rejected; null while it is held"),
    Column("decided_by", Text, comment="what or who released or rejected it, in words; null while it is held"),
    PrimaryKeyConstraint("coin", "currency", "ts", "source"),
    Index("quarantine_state", "state"),
    comment="Values held back: they stand in the raw log, and are no prices",
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
    Column("changed_at", UtcTime, nullable=False, comment="time of the price that changed its state"),
    Column("told_at", UtcTime, nullable=False, comment="time of the price of its newest firing or worse"),
    Column(
        "told",
        Double,
        nullable=False,
        comment="the furthest that was told so far, as a log return; 0 where it is about no move",
    ),
    Column("reference_price", Double, comment="price that it moved away from; null where it is about no move"),
    PrimaryKeyConstraint("coin", "currency", "rule"),
    comment="The newest incident of each coin and rule, open or over",
)

silences = Table(
    "silences",
    metadata,
    Column("id", Text, primary_key=True, comment="made of coin and rule: set again, it is the same one"),
    Column("coin", Text, nullable=False, comment="a CoinGecko id, or * for all"),
    Column("rule", Text, nullable=False, comment="a rule, * for all of them, or the key of a trouble"),
    Column("until", UtcTime, nullable=False, comment="when it ends"),
    Column("reason", Text, nullable=False, comment="why, in words"),
    Column("created_at", UtcTime, nullable=False, comment="when it was set"),
    comment="Alerts about these are stored and not sent, until then",
)

acknowledgements = Table(
    "acknowledgements",
    metadata,
    Column("subject", Text, primary_key=True, comment="id of the incident or of the trouble"),
    Column("reason", Text, nullable=False, comment="why, in words"),
    Column("acknowledged_at", UtcTime, nullable=False, comment="when somebody said so"),
    comment="Somebody has taken care: no more messages until it is over",
)

troubles = Table(
    "troubles",
    metadata,
    Column("key", Text, primary_key=True, comment="names the trouble: the same one, the same key"),
    Column("id", Text, nullable=False, comment="key and since: this time that it came up"),
    Column("state", Text, nullable=False, comment="noticed (not for long enough yet), open or over"),
    Column("title", Text, nullable=False, comment="the trouble in a few words"),
    Column("what", Text, nullable=False, comment="what happened, as it was last seen"),
    Column("action", Text, nullable=False, comment="what to do"),
    Column("link", Text, comment="the page to look at"),
    Column("since", UtcTime, nullable=False, comment="when it began"),
    Column("last_seen", UtcTime, nullable=False, comment="when it was seen last"),
    Column("times", Integer, nullable=False, comment="how often it was seen since then"),
    Column("told_at", UtcTime, comment="when the last message about it was stored; null without any"),
    Column("over_at", UtcTime, comment="null until it is over"),
    comment="The pipeline's own troubles, as they stand today",
)

trouble_messages = Table(
    "trouble_messages",
    metadata,
    Column("id", Text, primary_key=True, comment="made of the trouble's id and the state"),
    Column("trouble_id", Text, nullable=False, comment="id of the trouble"),
    Column("key", Text, nullable=False, comment="of the trouble"),
    Column("state", Text, nullable=False, comment="begun, reminder or over"),
    Column("title", Text, nullable=False, comment="the trouble in a few words"),
    Column("what", Text, nullable=False, comment="what happened, and to whom"),
    Column("action", Text, nullable=False, comment="what to do"),
    Column("link", Text, comment="the page to look at; null if there is none"),
    Column("since", UtcTime, nullable=False, comment="when it began"),
    Column("raised_at", UtcTime, nullable=False, comment="when it was decided"),
    Column("delivered_at", UtcTime, comment="null until Slack has taken it"),
    Column("delivery", Text, nullable=False, comment="as in alerts; superseded: the one after it tells it too"),
    Column("delivery_error", Text, comment="why it was not delivered; null if it was"),
    Column("message_id", Text, comment="the Slack message that carried it, alone or with others"),
    Index("trouble_messages_delivery", "delivery"),
    Index("trouble_messages_trouble", "trouble_id"),
    comment="What is told of troubles: stored first, delivered after, like the alerts",
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("fingerprint", Text, primary_key=True, comment="part of the SHA-256 of the webhook, which is a secret"),
    Column("connection", Text, nullable=False, comment="Airflow connection that had it"),
    Column("reason", Text, nullable=False, comment="what Slack answered"),
    Column("dead_since", UtcTime, comment="from when on nothing is posted to it; null while it lives"),
    Column("not_before", UtcTime, comment="until when Slack asked to wait; null if it did not"),
    comment="Webhooks that have to be left alone, for good or for a while",
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
    Column("opened_at", UtcTime, nullable=False, comment="when it was first reported"),
    Column("seen_at", UtcTime, nullable=False, comment="when it was last reported"),
    Column("seen_count", Integer, nullable=False, comment="reports since it was opened"),
    Column("resolved_at", UtcTime, comment="null while it is open"),
    Column("notify_after", UtcTime, nullable=False, comment="operators are not notified before: its grace period"),
    Column("notified_state", Text, comment="the state that operators know; null if they were never notified"),
    Column("notified_at", UtcTime, comment="when they were last notified"),
    Column("acknowledged_at", UtcTime, comment="when an operator acknowledged it: no more reminders"),
    Column("acknowledged_by", Text, comment="who, and why"),
    Column("delivery_error", Text, comment="why the last notification was not delivered; null if it was"),
    Index("pipeline_issues_state", "state"),
    comment="What is wrong with the pipeline itself, one row for each issue",
)

rate_limits = Table(
    "rate_limits",
    metadata,
    Column("name", Text, primary_key=True, comment="coingecko, or slack: and the fingerprint of a webhook"),
    Column("next_at", UtcTime, comment="the earliest time of the next request; null if any time"),
    Column("retry_at", UtcTime, comment="no request before: a response had Retry-After; null if none had"),
    comment="Request pacing shared by all workers",
)
