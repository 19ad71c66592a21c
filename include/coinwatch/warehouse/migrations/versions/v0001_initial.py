"""The initial schema."""

import sqlalchemy as sa
from alembic import op

from coinwatch.warehouse.schema import Amount, UtcTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "alerts",
        sa.Column("id", sa.Text(), nullable=False, comment="made of rule, coin, currency, state and ts"),
        sa.Column("coin", sa.Text(), nullable=False, comment="CoinGecko id, such as bitcoin"),
        sa.Column("currency", sa.Text(), nullable=False, comment="quote currency, such as usd"),
        sa.Column("rule", sa.Text(), nullable=False, comment="move_1h, move_24h, or another one of the rules file"),
        sa.Column("severity", sa.Text(), nullable=False, comment="warning, or critical from twice the threshold on"),
        sa.Column("state", sa.Text(), nullable=False, comment="of the incident: firing, worse, resolved or corrected"),
        sa.Column("ts", UtcTime(), nullable=False, comment="time of the price that raised it"),
        sa.Column("value", sa.Double(), nullable=True, comment="the move in percent; null if it is about no move"),
        sa.Column(
            "threshold", sa.Double(), nullable=True, comment="the move that fires the rule, in percent; null if none"
        ),
        sa.Column("message", sa.Text(), nullable=False, comment="the sentence of the notification"),
        sa.Column("raised_at", UtcTime(), nullable=False, comment="when it was decided"),
        sa.Column("delivered_at", UtcTime(), nullable=True, comment="null until Slack accepted it"),
        sa.Column(
            "delivery",
            sa.Text(),
            nullable=False,
            comment="pending, not_configured, delivered, silenced, held or refused",
        ),
        sa.Column("delivery_error", sa.Text(), nullable=True, comment="why it is not delivered; null if it is"),
        sa.Column("run_id", sa.Text(), nullable=False, comment="run of process_prices that raised it"),
        sa.Column("incident_id", sa.Text(), nullable=True, comment="the incident that it is a transition of"),
        sa.Column(
            "message_id", sa.Text(), nullable=True, comment="the Slack message that contains it, alone or in a batch"
        ),
        sa.PrimaryKeyConstraint("id"),
        comment="Market alerts and their delivery to Slack (the outbox)",
    )
    op.create_index("alerts_coin_rule_ts", "alerts", ["coin", "currency", "rule", "ts"], unique=False)
    op.create_index("alerts_delivery", "alerts", ["delivery"], unique=False)
    op.create_index("alerts_incident", "alerts", ["incident_id"], unique=False)
    op.create_table(
        "api_requests",
        sa.Column("day", UtcTime(), nullable=False, comment="midnight, UTC"),
        sa.Column("endpoint", sa.Text(), nullable=False, comment="prices or history"),
        sa.Column(
            "requests", sa.Integer(), nullable=False, comment="sent on that day, whatever the answer: errors count too"
        ),
        sa.PrimaryKeyConstraint("day", "endpoint"),
        comment="Requests to CoinGecko, which its plans limit by month",
    )
    op.create_table(
        "checked_hours",
        sa.Column("coin", sa.Text(), nullable=False, comment="CoinGecko id, such as bitcoin"),
        sa.Column("currency", sa.Text(), nullable=False, comment="quote currency, such as usd"),
        sa.Column("since", UtcTime(), nullable=False, comment="the first hour that was checked"),
        sa.Column("until", UtcTime(), nullable=False, comment="hours before this were checked"),
        sa.PrimaryKeyConstraint("coin", "currency"),
        comment="Hours that find_gaps has checked: those that the raw log does not have are in gaps",
    )
    op.create_table(
        "gaps",
        sa.Column("coin", sa.Text(), nullable=False, comment="CoinGecko id, such as bitcoin"),
        sa.Column("currency", sa.Text(), nullable=False, comment="quote currency, such as usd"),
        sa.Column("first_hour", UtcTime(), nullable=False, comment="the first full hour that is missing"),
        sa.Column(
            "last_hour", UtcTime(), nullable=False, comment="the gap is the full hours from first_hour to this one"
        ),
        sa.Column(
            "state", sa.Text(), nullable=False, comment="open, filled, no_data (CoinGecko has none) or beyond_plan"
        ),
        sa.Column("found_at", UtcTime(), nullable=False, comment="when the hours were found to be missing"),
        sa.Column("tries", sa.Integer(), nullable=False, comment="answered requests for these hours"),
        sa.Column(
            "retry_at", UtcTime(), nullable=True, comment="no request before; null if the next run requests them"
        ),
        sa.Column("filled_at", UtcTime(), nullable=True, comment="when the raw log got the hours; null until then"),
        sa.Column(
            "snapshot", sa.Text(), nullable=False, comment="archived answer of the newest try; empty before the first"
        ),
        sa.Column(
            "reason", sa.Text(), nullable=False, comment="why there is no price; empty unless no_data or beyond_plan"
        ),
        sa.PrimaryKeyConstraint("coin", "currency", "first_hour"),
        comment="Hours that the raw logs did not have, and what became of them; a row for each run of hours",
    )
    op.create_index("gaps_state", "gaps", ["state"], unique=False)
    op.create_table(
        "incidents",
        sa.Column("coin", sa.Text(), nullable=False, comment="CoinGecko id, such as bitcoin"),
        sa.Column("currency", sa.Text(), nullable=False, comment="quote currency, such as usd"),
        sa.Column("rule", sa.Text(), nullable=False, comment="what opened it"),
        sa.Column("id", sa.Text(), nullable=False, comment="the incident_id of its alerts"),
        sa.Column(
            "state", sa.Text(), nullable=False, comment="firing, worse, resolved or corrected; the first two are open"
        ),
        sa.Column("opened_at", UtcTime(), nullable=False, comment="time of the price that opened it"),
        sa.Column("changed_at", UtcTime(), nullable=False, comment="time of the price of its newest transition"),
        sa.Column("notified_at", UtcTime(), nullable=False, comment="time of the price of its newest firing or worse"),
        sa.Column(
            "notified_move",
            sa.Double(),
            nullable=False,
            comment="largest move notified so far, a log return; 0 if no move",
        ),
        sa.Column(
            "reference_price",
            sa.Double(),
            nullable=True,
            comment="price that it moved away from; null if it is about no move",
        ),
        sa.Column(
            "acknowledged_at",
            UtcTime(),
            nullable=True,
            comment="when an operator acknowledged it: no notification that it is worse",
        ),
        sa.Column("acknowledged_by", sa.Text(), nullable=True, comment="who, and why"),
        sa.PrimaryKeyConstraint("coin", "currency", "rule"),
        comment="The newest incident of each coin and rule, open or ended",
    )
    op.create_table(
        "log_positions",
        sa.Column("log", sa.Text(), nullable=False, comment="raw:<coin>, or manifest:<bucket and prefix>"),
        sa.Column("position", sa.BigInteger(), nullable=False, comment="bytes read; the end of a whole line"),
        sa.Column("tail_length", sa.Integer(), nullable=False, comment="bytes before the position that are hashed"),
        sa.Column("tail_sha256", sa.Text(), nullable=False, comment="their SHA-256: shows whether the log was changed"),
        sa.PrimaryKeyConstraint("log"),
        comment="How far each log has been read",
    )
    op.create_table(
        "pending_uploads",
        sa.Column("layer", sa.Text(), nullable=False, comment="raw or processed"),
        sa.Column("hour", UtcTime(), nullable=False, comment="hour of the rows in the S3 partition"),
        sa.PrimaryKeyConstraint("layer", "hour"),
        comment="S3 partitions that may have changed; stored with the rows that change them",
    )
    op.create_table(
        "pending_work",
        sa.Column("step", sa.Text(), nullable=False, comment="statistics, detection or export"),
        sa.Column("coin", sa.Text(), nullable=False, comment="CoinGecko id, such as bitcoin"),
        sa.Column("currency", sa.Text(), nullable=False, comment="quote currency, such as usd"),
        sa.Column("since", UtcTime(), nullable=False, comment="the step has to process rows from this time on"),
        sa.Column(
            "context_since",
            UtcTime(),
            nullable=False,
            comment="25 hours before: where the windows of those rows begin",
        ),
        sa.PrimaryKeyConstraint("step", "coin", "currency"),
        comment="Work that one step of process_prices leaves for the next; stored with the rows that cause it",
    )
    op.create_table(
        "pipeline_issues",
        sa.Column(
            "key", sa.Text(), nullable=False, comment="names the issue: stale, uploads, task:ingest_prices.fetch_prices"
        ),
        sa.Column("state", sa.Text(), nullable=False, comment="open or resolved"),
        sa.Column("title", sa.Text(), nullable=False, comment="the issue in a few words"),
        sa.Column("detail", sa.Text(), nullable=False, comment="what happened, as last reported"),
        sa.Column("action", sa.Text(), nullable=False, comment="what to do"),
        sa.Column("link", sa.Text(), nullable=True, comment="the page to look at; null if there is none"),
        sa.Column("coins", sa.Text(), nullable=False, comment="the coins it concerns, comma-separated; empty if none"),
        sa.Column("opened_at", UtcTime(), nullable=False, comment="when it was first reported"),
        sa.Column("seen_at", UtcTime(), nullable=False, comment="when it was last reported"),
        sa.Column("seen_count", sa.Integer(), nullable=False, comment="reports since it was opened"),
        sa.Column("resolved_at", UtcTime(), nullable=True, comment="null while it is open"),
        sa.Column(
            "notify_after", UtcTime(), nullable=False, comment="operators are not notified before: its grace period"
        ),
        sa.Column(
            "notified_state",
            sa.Text(),
            nullable=True,
            comment="the state that operators know; null if they were never notified",
        ),
        sa.Column(
            "notified_at",
            UtcTime(),
            nullable=True,
            comment="when they were last notified; null if not, or if coins were added since",
        ),
        sa.Column(
            "acknowledged_at", UtcTime(), nullable=True, comment="when an operator acknowledged it: no more reminders"
        ),
        sa.Column("acknowledged_by", sa.Text(), nullable=True, comment="who, and why"),
        sa.Column(
            "delivery_error",
            sa.Text(),
            nullable=True,
            comment="why the last notification was not delivered; null if it was",
        ),
        sa.PrimaryKeyConstraint("key"),
        comment="What is wrong with the pipeline itself, one row for each issue",
    )
    op.create_index("pipeline_issues_state", "pipeline_issues", ["state"], unique=False)
    op.create_table(
        "price_statistics",
        sa.Column("coin", sa.Text(), nullable=False, comment="CoinGecko id, such as bitcoin"),
        sa.Column("currency", sa.Text(), nullable=False, comment="quote currency, such as usd"),
        sa.Column("ts", UtcTime(), nullable=False, comment="that of the price"),
        sa.Column("price", Amount(), nullable=False, comment="in the quote currency, exact"),
        sa.Column("points_24h", sa.Integer(), nullable=False, comment="rows in the window (ts - 24 h, ts]"),
        sa.Column("rolling_mean_24h", sa.Double(), nullable=False, comment="mean of that window"),
        sa.Column(
            "rolling_std_24h",
            sa.Double(),
            nullable=True,
            comment="sample standard deviation of that window; null below 2 points",
        ),
        sa.Column(
            "zscore_24h",
            sa.Double(),
            nullable=True,
            comment="against the window (ts - 24 h, ts); null below 12 points or without spread",
        ),
        sa.Column(
            "change_1h_pct",
            sa.Double(),
            nullable=True,
            comment="against the price nearest to ts - 1 h, +-30 min; null if there is none",
        ),
        sa.Column(
            "change_24h_pct",
            sa.Double(),
            nullable=True,
            comment="against the price nearest to ts - 24 h, +-1 h; null if there is none",
        ),
        sa.Column(
            "sigma_1h_pct",
            sa.Double(),
            nullable=True,
            comment="the coin's typical 1-hour move after this row, in percent",
        ),
        sa.Column("sigma_samples", sa.Integer(), nullable=False, comment="moves that sigma has learned from"),
        sa.Column(
            "sigma_variance",
            sa.Double(),
            nullable=False,
            comment="sigma squared, of log returns: what the next row needs",
        ),
        sa.Column(
            "reference_1h_ts",
            UtcTime(),
            nullable=True,
            comment="price nearest to ts - 1 h, or of a late poll the one before; else null",
        ),
        sa.Column(
            "reference_1h_price", sa.Double(), nullable=True, comment="that price; rule move_1h compares with it"
        ),
        sa.Column(
            "reference_24h_ts",
            UtcTime(),
            nullable=True,
            comment="price nearest to ts - 24 h, +-1 h; null if there is none",
        ),
        sa.Column(
            "reference_24h_price", sa.Double(), nullable=True, comment="that price; rule move_24h compares with it"
        ),
        sa.Column(
            "prior_variance",
            sa.Double(),
            nullable=True,
            comment="sigma_variance before this row, which judges it; null in the warm-up",
        ),
        sa.Column(
            "reverts_ts",
            UtcTime(),
            nullable=True,
            comment="the price before, if it was a spike that this one takes back; else null",
        ),
        sa.Column(
            "unchanged_since",
            UtcTime(),
            nullable=True,
            comment="first live poll in a row with exactly this price; null for history",
        ),
        sa.Column(
            "unchanged_polls",
            sa.Integer(),
            nullable=True,
            comment="live polls in a row with exactly this price; null for history",
        ),
        sa.PrimaryKeyConstraint("coin", "currency", "ts"),
        comment="Statistics of each price against the prices before it; rebuilt from prices at any time",
        sqlite_with_rowid=False,
    )
    op.create_index("price_statistics_ts", "price_statistics", ["ts"], unique=False)
    op.create_table(
        "prices",
        sa.Column("coin", sa.Text(), nullable=False, comment="CoinGecko id, such as bitcoin"),
        sa.Column("currency", sa.Text(), nullable=False, comment="quote currency, such as usd"),
        sa.Column("ts", UtcTime(), nullable=False, comment="as-of time of a live poll, full hour of history"),
        sa.Column("price", Amount(), nullable=False, comment="in the quote currency, exact"),
        sa.Column("market_cap", Amount(), nullable=True, comment="in the quote currency; null is unknown"),
        sa.Column(
            "volume_24h", Amount(), nullable=True, comment="traded in 24 hours, in the quote currency; null is unknown"
        ),
        sa.Column("source", sa.Text(), nullable=False, comment="live or history; live where both exist"),
        sa.Column(
            "last_updated_at", UtcTime(), nullable=True, comment="the provider's time of the price; null is unknown"
        ),
        sa.Column("fetched_at", UtcTime(), nullable=True, comment="when the response was received; null is unknown"),
        sa.Column("snapshot", sa.Text(), nullable=False, comment="the snapshot that contains it"),
        sa.PrimaryKeyConstraint("coin", "currency", "ts"),
        comment="One price for each coin, currency and time",
        sqlite_with_rowid=False,
    )
    op.create_index("prices_ts", "prices", ["ts"], unique=False)
    op.create_table(
        "quarantine",
        sa.Column("coin", sa.Text(), nullable=False, comment="CoinGecko id, such as bitcoin"),
        sa.Column("currency", sa.Text(), nullable=False, comment="quote currency, such as usd"),
        sa.Column("ts", UtcTime(), nullable=False, comment="as-of time of the poll, or full hour of history"),
        sa.Column("source", sa.Text(), nullable=False, comment="live or history"),
        sa.Column("value", sa.Text(), nullable=False, comment="as the API wrote it"),
        sa.Column("reason", sa.Text(), nullable=False, comment="why it is quarantined"),
        sa.Column("snapshot", sa.Text(), nullable=False, comment="the snapshot that contains it"),
        sa.Column("state", sa.Text(), nullable=False, comment="held, released (stored as a price) or rejected"),
        sa.Column("held_at", UtcTime(), nullable=False, comment="when it was quarantined"),
        sa.Column(
            "decided_at", UtcTime(), nullable=True, comment="when it was released or rejected; null while it is held"
        ),
        sa.Column(
            "decided_by",
            sa.Text(),
            nullable=True,
            comment="who released or rejected it, and why; null while it is held",
        ),
        sa.PrimaryKeyConstraint("coin", "currency", "ts", "source"),
        comment="Quarantined values: the raw log has them, prices has not",
    )
    op.create_index("quarantine_state", "quarantine", ["state"], unique=False)
    op.create_table(
        "rate_limits",
        sa.Column("name", sa.Text(), nullable=False, comment="coingecko, or slack:<fingerprint of the webhook>"),
        sa.Column(
            "next_at", UtcTime(), nullable=True, comment="the earliest time of the next request; null if any time"
        ),
        sa.Column(
            "retry_at",
            UtcTime(),
            nullable=True,
            comment="no request before: a response had Retry-After; null if none had",
        ),
        sa.PrimaryKeyConstraint("name"),
        comment="Request pacing shared by all workers",
    )
    op.create_table(
        "raw_prices",
        sa.Column("coin", sa.Text(), nullable=False, comment="CoinGecko id, such as bitcoin"),
        sa.Column("currency", sa.Text(), nullable=False, comment="quote currency, such as usd"),
        sa.Column("ts", UtcTime(), nullable=False, comment="as-of time of a live poll, full hour of history"),
        sa.Column("source", sa.Text(), nullable=False, comment="live or history"),
        sa.Column("price", sa.Text(), nullable=False, comment="in the quote currency"),
        sa.Column("market_cap", sa.Text(), nullable=False, comment="in the quote currency"),
        sa.Column("volume_24h", sa.Text(), nullable=False, comment="traded in 24 hours, in the quote currency"),
        sa.Column(
            "change_24h_pct", sa.Text(), nullable=False, comment="the provider's own; nothing is computed from it"
        ),
        sa.Column("last_updated_at", sa.Text(), nullable=False, comment="the provider's time of the price, ISO 8601"),
        sa.Column("fetched_at", sa.Text(), nullable=False, comment="when the response was received, ISO 8601"),
        sa.Column("snapshot", sa.Text(), nullable=False, comment="the snapshot that contains it"),
        sa.PrimaryKeyConstraint("coin", "currency", "ts", "source"),
        comment="The raw logs, line for line, as text: every digit as the API wrote it; empty is unknown",
        sqlite_with_rowid=False,
    )
    op.create_index("raw_prices_ts", "raw_prices", ["ts"], unique=False)
    op.create_table(
        "s3_objects",
        sa.Column("bucket", sa.Text(), nullable=False, comment="S3 bucket"),
        sa.Column("key", sa.Text(), nullable=False, comment="of a raw or processed partition, with the prefix"),
        sa.Column("sha256", sa.Text(), nullable=False, comment="of the content that was uploaded last"),
        sa.Column("uploaded_at", UtcTime(), nullable=False, comment="when that was"),
        sa.PrimaryKeyConstraint("bucket", "key"),
        comment="SHA-256 of each partition that S3 has: what differs is uploaded by the next run",
    )
    op.create_table(
        "silences",
        sa.Column("id", sa.Text(), nullable=False, comment="made of coin and rule: the same ones again replace it"),
        sa.Column("coin", sa.Text(), nullable=False, comment="a CoinGecko id, or * for all"),
        sa.Column(
            "rule", sa.Text(), nullable=False, comment="a rule, * for all of them, or the key of a pipeline issue"
        ),
        sa.Column("until", UtcTime(), nullable=False, comment="when it ends"),
        sa.Column("reason", sa.Text(), nullable=False, comment="why, in words"),
        sa.Column("created_at", UtcTime(), nullable=False, comment="when it was set"),
        sa.PrimaryKeyConstraint("id"),
        comment="Alerts and pipeline issues that are stored and not sent until a time",
    )
