"""Every 15 minutes: check the pipeline itself, send what is due to Slack, and write the heartbeat.

The checks: stale prices, a late run, undelivered alerts, pending uploads, failed tasks and a short request budget. Each
one that fails is a pipeline issue. Operators are notified when it opens, once a day until it is resolved or
acknowledged, and when it is resolved.

**Started** by the clock, five minutes past each quarter of an hour; also by hand.

**Reads** the warehouse and the data folder, and asks Airflow whether failed tasks succeeded since; sends no request to
CoinGecko.
**Writes** `pipeline_issues` in the warehouse, Slack messages (connection `slack_failures`, without it `slack_default`),
`heartbeat.json` in the data folder, and calls `COINWATCH_HEARTBEAT_URL` if that is set.

**When it fails** the task's log says what to do. `deliver_waiting` fails only if an operator has to act: the webhook is
revoked or wrong. While operators cannot be notified of an open issue the heartbeat URL is not called, so an outside
monitor notices.

**Safe to run again:** yes, at any time; no notification is sent twice.
"""

from airflow.sdk import TriggerRule, dag, task

from coinwatch.app import App
from coinwatch.tasks import DEFAULT_ARGS, START_DATE


@dag(
    # Not at the full hour, when ingest_prices runs.
    schedule="5-59/15 * * * *",
    start_date=START_DATE,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    doc_md=__doc__,
    tags=["operate"],
)
def watch_feed():
    """Check the pipeline itself."""

    @task
    def check_feed() -> list[str]:
        """Report and resolve pipeline issues."""
        from coinwatch.health import checks

        return checks.check_feed(App())

    @task
    def deliver_waiting() -> int:
        """Send the alerts and pipeline issues that are due."""
        from coinwatch.health import checks

        return checks.deliver_waiting(App())

    # Also when Slack is down.
    @task(trigger_rule=TriggerRule.ALL_DONE)
    def write_heartbeat() -> str:
        """Write the heartbeat file and call the heartbeat URL."""
        from coinwatch.health import heartbeat

        return heartbeat.write_heartbeat(App())

    check_feed() >> deliver_waiting() >> write_heartbeat()


watch_feed()
