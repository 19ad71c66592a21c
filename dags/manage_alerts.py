"""By hand: silence or unsilence alerts, acknowledge what is open, or re-enable webhooks.

* **silence**: alerts of the coin and rule are stored and not sent until then. `*` is every coin, or every rule of the
  market. The key of a pipeline issue as the rule (`uploads`, `stale`) silences that issue.
* **unsilence** ends a silence; name its coin and rule.
* **acknowledge**: of the open incidents of the coin and rule, "resolved" is sent and "worse" is not; of a pipeline
  issue (its key as the rule) no reminders are sent.
* **reenable_webhooks**: posts again to revoked webhooks. A new webhook in the connection needs no action.

**Started** by hand only, with params.

**Reads** and **writes** the warehouse only.

**When it fails** the task's log says why, and what there is to choose from.

**Safe to run again:** yes; the same silence again replaces the old one.
"""

from airflow.sdk import Param, dag, get_current_context, task

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
    params={
        "action": Param("silence", enum=["silence", "unsilence", "acknowledge", "reenable_webhooks"]),
        "coin": Param("*", type="string", description="CoinGecko id, or * for all"),
        "rule": Param("*", type="string", description="a rule, * for all, or the key of a pipeline issue"),
        "hours": Param(
            6, type="number", exclusiveMinimum=0, description="length of the silence, unless until is given"
        ),
        "until": Param(None, type=["null", "string"], format="date-time", description="end of the silence"),
        "reason": Param("", type="string", description="why, and who takes care of it"),
    },
)
def manage_alerts():
    """Silences and acknowledgements."""

    @task
    def apply_action() -> str:
        """Apply the action that the params of the run ask for."""
        from coinwatch.alerts import silences

        return silences.manage_alerts(App(), get_current_context()["params"])

    apply_action()


manage_alerts()
