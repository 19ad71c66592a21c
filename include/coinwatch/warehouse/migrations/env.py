"""How Alembic runs our migrations: in the transaction that `open_warehouse` holds."""

from alembic import context

from coinwatch.warehouse.engine import VERSION_TABLE
from coinwatch.warehouse.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # SQLite changes a table by building it anew.
    render_as_batch=True,
)
context.run_migrations()
