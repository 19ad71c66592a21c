"""The first schema."""

import sqlalchemy as sa
from alembic import op

from coinwatch.storage.schema import Amount, UtcTime

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "alerts",
        sa.Column(
            "id",
            sa.Text(),
            nullable=False,
            comment="made of rule, coin, currency and ts: the same finding, the same id",
        ),
        sa.Column("coin", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False, comment="move_1h or move_24h"),
        sa.Column("severity", sa.Text(), nullable=False, comment="warning, or critical from twice the threshold on"),
        sa.Column("state", sa.Text(), nullable=False, comment="firing"),
        sa.Column("ts", UtcTime(), nullable=False, comment="time of the price that raised it"),
        sa.Column("value", sa.Double(), nullable=False, comment="the move in percent"),
        sa.Column("threshold", sa.Double(), nullable=False, comment="the move that the rule allows, in percent"),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("raised_at", UtcTime(), nullable=False),
        sa.Column("delivered_at", UtcTime(), nullable=True, comment="null until Slack has taken it"),
        sa.Column("delivery", sa.Text(), nullable=False, comment="pending, not_configured or delivered"),
        sa.Column("delivery_error", sa.Text(), nullable=True, comment="why the last try failed; null if it did not"),
        sa.Column("run_id", sa.Text(), nullable=False, comment="run of process_prices that raised it"),
        sa.PrimaryKeyConstraint("id"),
        comment="Market alerts: decided and stored first, delivered after",
    )
    op.create_index("alerts_coin_rule_ts", "alerts", ["coin", "currency", "rule", "ts"], unique=False)
    op.create_index("alerts_delivery", "alerts", ["delivery"], unique=False)
    op.create_table(
        "log_positions",
        sa.Column(
            "log", sa.Text(), nullable=False, comment="the log's name: a coin's raw CSV, or the archive's manifest"
        ),
        sa.Column("position", sa.BigInteger(), nullable=False, comment="bytes read so far: the end of a whole line"),
        sa.Column(
            "tail_length", sa.Integer(), nullable=False, comment="bytes before the position that tail_sha256 is of"
        ),
        sa.Column(
            "tail_sha256", sa.Text(), nullable=False, comment="tells whether what was read has been changed since"
        ),
        sa.PrimaryKeyConstraint("log"),
        comment="How far each log has been read",
    )
    op.create_table(
        "pending_uploads",
        sa.Column("layer", sa.Text(), nullable=False, comment="raw or processed"),
        sa.Column("hour", UtcTime(), nullable=False, comment="data hour whose S3 partition may have changed"),
        sa.PrimaryKeyConstraint("layer", "hour"),
        comment="S3 partitions to look at; stored together with what changed them",
    )
    op.create_table(
        "pending_work",
        sa.Column("step", sa.Text(), nullable=False, comment="statistics, detection or export"),
        sa.Column("coin", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("since", UtcTime(), nullable=False, comment="the step has to do its work again from this time on"),
        sa.PrimaryKeyConstraint("step", "coin", "currency"),
        comment="What one step of process_prices has left for the next; stored together with what caused it",
    )
    op.create_table(
        "price_statistics",
        sa.Column("coin", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("ts", UtcTime(), nullable=False),
        sa.Column("price", Amount(), nullable=False),
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
            comment="the coin's usual 1-hour move after this row, in percent",
        ),
        sa.Column("sigma_samples", sa.Integer(), nullable=False, comment="moves that sigma has learned from"),
        sa.Column(
            "sigma_variance",
            sa.Double(),
            nullable=False,
            comment="sigma squared, of log returns: what the next row needs",
        ),
        sa.PrimaryKeyConstraint("coin", "currency", "ts"),
        comment="What each price meant when seen with those before it; rebuilt from prices at any time",
    )
    op.create_index("price_statistics_ts", "price_statistics", ["ts"], unique=False)
    op.create_table(
        "prices",
        sa.Column("coin", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("ts", UtcTime(), nullable=False, comment="as-of time of a live pull, full hour of history"),
        sa.Column("price", Amount(), nullable=False),
        sa.Column("market_cap", Amount(), nullable=True),
        sa.Column("volume_24h", Amount(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False, comment="live or history; where both exist, live stands here"),
        sa.Column("last_updated_at", UtcTime(), nullable=True),
        sa.Column("fetched_at", UtcTime(), nullable=True),
        sa.Column("snapshot", sa.Text(), nullable=False, comment="archived answer that the price was taken from"),
        sa.PrimaryKeyConstraint("coin", "currency", "ts"),
        comment="One price for each coin, currency and time",
    )
    op.create_index("prices_ts", "prices", ["ts"], unique=False)
    op.create_table(
        "raw_prices",
        sa.Column("coin", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("ts", UtcTime(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False, comment="live or history"),
        sa.Column("price", sa.Text(), nullable=False),
        sa.Column("market_cap", sa.Text(), nullable=False),
        sa.Column("volume_24h", sa.Text(), nullable=False),
        sa.Column("change_24h_pct", sa.Text(), nullable=False),
        sa.Column("last_updated_at", sa.Text(), nullable=False),
        sa.Column("fetched_at", sa.Text(), nullable=False),
        sa.Column("snapshot", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("coin", "currency", "ts", "source"),
        comment="The raw logs, line for line, as text: every digit as the API wrote it; empty is unknown",
    )
    op.create_index("raw_prices_ts", "raw_prices", ["ts"], unique=False)
    op.create_table(
        "s3_objects",
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("uploaded_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("bucket", "key"),
        comment="What S3 has: the ledger that lets the next run heal an outage",
    )
