"""The steps of `ingest_prices` and `heal_history`: from the API to the raw log."""
