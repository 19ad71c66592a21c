"""Gaps of the history, requests and their turns, and what is wrong with a feed."""

import sqlalchemy as sa
from alembic import op

from coinwatch.storage.schema import UtcTime

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "api_requests",
        sa.Column("day", UtcTime(), nullable=False, comment="midnight, UTC"),
        sa.Column("endpoint", sa.Text(), nullable=False, comment="what was asked for: prices, history or ping"),
        sa.Column(
            "requests", sa.Integer(), nullable=False, comment="sent on that day, whatever the answer: errors count too"
        ),
        sa.PrimaryKeyConstraint("day", "endpoint"),
        comment="Requests to CoinGecko, which its plans limit by month",
    )
    op.create_table(
        "api_turns",
        sa.Column("api", sa.Text(), nullable=False, comment="coingecko"),
        sa.Column("next_at", UtcTime(), nullable=False, comment="the earliest time of the next request"),
        sa.Column(
            "closed_until",
            UtcTime(),
            nullable=True,
            comment="no request before, because an answer asked to wait; null if none did",
        ),
        sa.PrimaryKeyConstraint("api"),
        comment="Whose turn it is to ask: keeps the workers' requests apart",
    )
    op.create_table(
        "feed_conditions",
        sa.Column("coin", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column(
            "condition",
            sa.Text(),
            nullable=False,
            comment="unknown_id, no_price, bad_price, not_understood, stale or unchanged",
        ),
        sa.Column("since", UtcTime(), nullable=False, comment="as-of time of the first pull that had it"),
        sa.Column("last_seen", UtcTime(), nullable=False, comment="as-of time of the newest pull that had it"),
        sa.Column("pulls", sa.Integer(), nullable=False, comment="pulls that had it"),
        sa.Column(
            "ended_at",
            UtcTime(),
            nullable=True,
            comment="as-of time of the first pull without it; null while it lasts",
        ),
        sa.Column(
            "reason", sa.Text(), nullable=False, comment="what was missing or wrong in the newest pull, in words"
        ),
        sa.Column(
            "snapshot", sa.Text(), nullable=False, comment="archived answer of that pull; empty if it was not archived"
        ),
        sa.PrimaryKeyConstraint("coin", "currency", "condition", "since"),
        comment="What was wrong with a coin's live price, from when to when",
    )
    op.create_table(
        "gaps",
        sa.Column("coin", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("first_hour", UtcTime(), nullable=False),
        sa.Column("found_at", UtcTime(), nullable=False, comment="when the hours were first seen to be missing"),
        sa.Column(
            "last_hour",
            UtcTime(),
            nullable=False,
            comment="the gap is the full hours from first_hour to this one",
        ),
        sa.Column(
            "state", sa.Text(), nullable=False, comment="open, healed, no_data (CoinGecko has none) or beyond_plan"
        ),
        sa.Column(
            "tries", sa.Integer(), nullable=False, comment="requests that asked for these hours and were answered"
        ),
        sa.Column("tried_at", UtcTime(), nullable=True, comment="of the newest of them; null if there was none"),
        sa.Column(
            "next_try_at",
            UtcTime(),
            nullable=True,
            comment="not asked for again before; null if the next run asks",
        ),
        sa.Column(
            "healed_at",
            UtcTime(),
            nullable=True,
            comment="when the raw log was seen to have them; null until then",
        ),
        sa.Column(
            "snapshot", sa.Text(), nullable=False, comment="of the newest try, archived unless refused; empty before it"
        ),
        sa.Column("reason", sa.Text(), nullable=False, comment="why they could not be had, in words; empty unless so"),
        sa.PrimaryKeyConstraint("coin", "currency", "first_hour", "found_at"),
        comment="Hours that the raw logs did not have, and what became of them",
    )
    with op.batch_alter_table("gaps", schema=None) as batch_op:
        batch_op.create_index("gaps_state", ["state"], unique=False)
