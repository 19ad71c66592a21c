"""Alembic's environment: migrations run in the transaction of `open_warehouse`."""

from alembic import context

from coinwatch.warehouse.engine import VERSION_TABLE
from coinwatch.warehouse.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # SQLite changes a table by copying it.
    render_as_batch=True,
)
context.run_migrations()
