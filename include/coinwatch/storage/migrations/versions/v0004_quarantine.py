"""Values that are held back."""

import sqlalchemy as sa
from alembic import op

from coinwatch.storage.schema import UtcTime

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "quarantine",
        sa.Column("coin", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("ts", UtcTime(), nullable=False, comment="as-of time of the pull, or full hour of history"),
        sa.Column("source", sa.Text(), nullable=False, comment="live or history"),
        sa.Column("value", sa.Text(), nullable=False, comment="as the API wrote it"),
        sa.Column("reason", sa.Text(), nullable=False, comment="why it is held back, in words"),
        sa.Column("snapshot", sa.Text(), nullable=False, comment="archived answer that it stands in"),
        sa.Column("state", sa.Text(), nullable=False, comment="held, released (it is a price by now) or rejected"),
        sa.Column("held_at", UtcTime(), nullable=False, comment="when it was held back"),
        sa.Column(
            "decided_at", UtcTime(), nullable=True, comment="when it was released or rejected; null while it is held"
        ),
        sa.Column(
            "decided_by",
            sa.Text(),
            nullable=True,
            comment="what or who released or rejected it, in words; null while it is held",
        ),
        sa.PrimaryKeyConstraint("coin", "currency", "ts", "source"),
        comment="Values held back: they stand in the raw log, and are no prices",
    )
    with op.batch_alter_table("quarantine", schema=None) as batch_op:
        batch_op.create_index("quarantine_state", ["state"], unique=False)
