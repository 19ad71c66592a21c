"""The initial schema."""

from alembic import op

from coinwatch.warehouse.schema import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table."""
    metadata.create_all(op.get_bind())
