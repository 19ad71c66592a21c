"""Every 15 minutes: does the pipeline itself do what it should, and do people hear of what they should?

Looks for a coin without a fresh price for 2 hours, an hour whose run is late, alerts that do not reach Slack, uploads
that pile up, and failed tasks; delivers whatever waits; and leaves a heartbeat. A trouble is told once when it begins,
once a day while it lasts, and once when it is over, and looks otherwise than an alert about the market.

**Started** by the clock, five minutes past each quarter of an hour; also by hand.

**Reads** the warehouse and the data folder; asks nobody for prices.
**Writes** troubles and their messages into the warehouse, Slack messages (connection `slack_failures`; without it
`slack_default`), `heartbeat.json` in the data folder, and a call of `COINWATCH_HEARTBEAT_URL` if that is set.

**When it fails** the task's log says what to do. `deliver_waiting` fails only if somebody has to act: the webhook is
dead or wrong. While no channel can tell of the open troubles the heartbeat is not sent on, so that whoever waits for it
outside notices.

**Safe to run again:** yes, at any time; what has been told is not told again.
"""

from airflow.sdk import TriggerRule, dag, task

from coinwatch.app import App, open_watch
from coinwatch.tasks import DEFAULT_ARGS, START_DATE


@dag(
    # Off the full hour, when ingest_prices runs.
    schedule="5-59/15 * * * *",
    start_date=START_DATE,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    doc_md=__doc__,
    tags=["operate"],
)
def watch_feed():
    """The pipeline's own troubles, and a sign of life."""

    @task
    def check_feed() -> list[str]:
        """Look for troubles of the pipeline itself."""
        return open_watch().check_feed()

    @task
    def deliver_waiting() -> int:
        """Deliver what Slack has not got yet."""
        from coinwatch.health import checks

        return checks.deliver_waiting(App())

    # The pipeline lives, also when Slack does not.
    @task(trigger_rule=TriggerRule.ALL_DONE)
    def write_heartbeat() -> str:
        """Leave a sign of life for whoever waits for it outside."""
        return open_watch().write_heartbeat()

    check_feed() >> deliver_waiting() >> write_heartbeat()


watch_feed()
