"""What Docker Compose runs before Airflow: secrets, folders and databases; docker-compose.yaml says in which order."""
