"""What Docker Compose runs before Airflow: `prepare` (secrets, data folder), then `init` (databases, user, pool)."""
