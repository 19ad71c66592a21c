"""${message}."""

import sqlalchemy as sa
from alembic import op

from coinwatch.warehouse.schema import Amount, UtcTime

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Bring a database of the version before to this one."""
    ${upgrades if upgrades else "pass"}
