"""Whenever a raw log has grown: statistics, anomalies, alerts, the processed CSV and S3.

Takes what is new in the raw logs into the warehouse, computes its statistics, detects abnormal moves over 1 hour and
24 hours, alerts in Slack, brings the processed CSV up to date and uploads to S3.

**Started** by the assets of the raw logs (any of them); also by hand. The event only wakes it up: each step finds its
work in the warehouse, so events that were merged or missed lose nothing.

**Reads** `<coin>_raw.csv` from where it stopped.
**Writes** the warehouse (connection `warehouse_default`, or `warehouse.db` in the data folder), `<coin>_processed.csv`,
Slack messages (connection `slack_default`; without it alerts are stored and delivered once it exists) and S3 objects
(`COINWATCH_S3_BUCKET`, connection `aws_default`; without a bucket nothing is uploaded).

**When it fails** the task's log says what happened and what to do. What a failed step left undone is done by the next
run, or by clearing the task.

**Safe to run again:** yes, any task, at any time. The one thing that can happen twice is a Slack message, if the task
is killed between Slack's answer and the note of it; both then carry the same alert id.
"""

from airflow.sdk import AssetAny, dag, get_current_context, task

from coinwatch.app import App
from coinwatch.assets import PROCESSED_ASSETS, RAW_ASSETS
from coinwatch.tasks import DEFAULT_ARGS, START_DATE


@dag(
    schedule=AssetAny(*RAW_ASSETS),
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
    def load_raw_prices() -> dict[str, int]:
        """Take what is new in the raw logs into the warehouse."""
        from coinwatch.warehouse import load

        return load.load_raw_prices(App())

    @task
    def compute_rolling_statistics() -> dict[str, int]:
        """Compute mean, deviation, changes and usual move of each new price, and of those after it."""
        from coinwatch.statistics import compute

        return compute.compute_rolling_statistics(App())

    @task
    def detect_anomalies() -> list[str]:
        """Decide which new prices are abnormal moves, and store an alert for each."""
        from coinwatch.alerts import incidents

        return incidents.detect_anomalies(App(), get_current_context()["run_id"])

    @task
    def send_slack_alerts() -> int:
        """Deliver the alerts that Slack has not got yet."""
        from coinwatch.slack import deliver

        return deliver.send_slack_alerts(App())

    @task(outlets=PROCESSED_ASSETS)
    def export_processed_csv() -> dict[str, str]:
        """Bring the processed CSV of each coin up to date."""
        from coinwatch.statistics import processed_csv

        return processed_csv.export_processed_csv(App())

    @task
    def upload_to_s3() -> dict[str, int]:
        """Upload the hours that have changed, and the snapshots that are new."""
        from coinwatch.s3 import uploads

        return uploads.upload_to_s3(App())

    # The work itself is handed over in the warehouse, together with the results, so that no crash can part them.
    statistics = compute_rolling_statistics()
    load_raw_prices() >> statistics
    statistics >> detect_anomalies() >> send_slack_alerts()
    statistics >> export_processed_csv() >> upload_to_s3()


process_prices()
