"""The database: schema, migrations, and the step that loads the raw log into it."""
