"""What prices mean: statistics, anomalies and alert decisions, without Airflow and without I/O."""
