"""The database: schema, migrations, pending work, and the step that loads the raw logs."""
