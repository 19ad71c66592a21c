"""Alembic's environment: migrations run in the transaction of `open_warehouse`."""

from alembic import context

from coinwatch.warehouse.engine import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
