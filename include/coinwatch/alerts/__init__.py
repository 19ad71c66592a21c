"""Anomalies, incidents and the alerts they raise; silences and acknowledgements."""
