"""After each append to a raw log: statistics, anomalies, alerts, the processed CSV and S3.

**Started** by the asset `raw_prices`; also by hand. Steps find their work in the warehouse, also after a missed event.
**Reads** new lines of `<coin>_raw.csv`.
**Writes** the warehouse (connection `warehouse_default`, or `warehouse.db` in the data folder), `<coin>_processed.csv`,
Slack messages (connection `slack_default`; without it they wait) and S3 objects (`COINWATCH_S3_BUCKET`, connection
`aws_default`; without a bucket none).
**When it fails** the task's log says what happened and what to do. The next run, or clearing the task, does the rest.
**Safe to run again:** yes. Only a Slack message can be sent twice, if its task is killed before it has stored Slack's
answer; both have the same alert id.
"""

from airflow.sdk import dag, get_current_context, task

from coinwatch.app import App
from coinwatch.assets import PROCESSED_PRICES, RAW_PRICES, S3_UPLOADED, s3_prices
from coinwatch.events import publish_through
from coinwatch.tasks import DEFAULT_ARGS, START_DATE


@dag(
    schedule=[RAW_PRICES],
    start_date=START_DATE,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    doc_md=__doc__,
    tags=["process"],
)
def process_prices():
    """From the raw log to statistics, alerts and S3."""

    @task
    def load_raw_prices() -> int:
        """Load new lines of the raw logs into the warehouse."""
        from coinwatch.warehouse import load

        return load.load_raw_prices(App())

    @task
    def compute_rolling_statistics() -> int:
        """Compute the statistics of each new price and of those after it."""
        from coinwatch.statistics import compute

        return compute.compute_rolling_statistics(App())

    @task
    def detect_anomalies() -> list[str]:
        """Detect anomalies, and store an alert for each transition of an incident."""
        from coinwatch.alerts import incidents

        return incidents.detect_anomalies(App(), get_current_context()["run_id"])

    @task
    def send_slack_alerts() -> int:
        """Send the alerts and pipeline issues that are due."""
        from coinwatch.slack import deliver

        return deliver.send_slack_alerts(App())

    @task(outlets=[PROCESSED_PRICES])
    def export_processed_csv() -> int:
        """Update the processed CSV of each coin."""
        from coinwatch.statistics import processed_csv

        return processed_csv.export_processed_csv(App())

    @task(outlets=[S3_UPLOADED])
    def upload_to_s3() -> dict[str, int]:
        """Upload the partitions that changed, and new snapshots."""
        from coinwatch.s3 import uploads

        return publish_through(S3_UPLOADED, s3_prices, uploads.upload_to_s3(App()))

    load_raw_prices() >> (statistics := compute_rolling_statistics())
    statistics >> detect_anomalies() >> send_slack_alerts()
    statistics >> export_processed_csv() >> upload_to_s3()


process_prices()
