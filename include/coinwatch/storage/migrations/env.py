"""How Alembic runs our migrations: in the transaction that `open_warehouse` holds."""

from alembic import context

from coinwatch.storage.schema import metadata
from coinwatch.storage.warehouse import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # SQLite changes a table by building it anew.
    render_as_batch=True,
)
context.run_migrations()
