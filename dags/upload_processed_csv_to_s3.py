"""By hand: upload what S3 does not have yet, and the whole processed CSV of each coin.

For a new bucket or prefix: every partition is compared with the SHA-256 of its last upload, and uploaded if it differs;
every snapshot is written unless S3 has it. Then the whole processed CSV of each coin is uploaded to
`latest/<coin>_processed.csv`.

**Started** by hand only.

**Reads** the warehouse, the archive and `<coin>_processed.csv`.
**Writes** S3 objects (`COINWATCH_S3_BUCKET`, connection `aws_default`).

**When it fails** the task's log names the object and what to check; the next run does the rest.

**Safe to run again:** yes; a second run uploads only the `latest` files.
"""

from airflow.sdk import dag, task

from coinwatch.app import App
from coinwatch.tasks import DEFAULT_ARGS, START_DATE


@dag(
    schedule=None,
    start_date=START_DATE,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    doc_md=__doc__,
    tags=["operate"],
)
def upload_processed_csv_to_s3():
    """Upload everything that S3 does not have yet."""

    @task
    def upload_missing() -> dict[str, int]:
        """Upload every partition and snapshot that S3 does not have."""
        from coinwatch.s3 import uploads

        return uploads.upload_missing(App())

    @task
    def upload_latest() -> list[str]:
        """Upload the whole processed CSV of each coin."""
        from coinwatch.s3 import uploads

        return uploads.upload_latest(App())

    upload_missing() >> upload_latest()


upload_processed_csv_to_s3()
