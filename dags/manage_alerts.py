"""By hand: be silent about a coin or rule for a while, say that somebody looks after it, or use a mended webhook again.

* **silence**: alerts about the coin and rule are stored and not sent, until then. `*` is every coin, or every rule of
  the market; a trouble of the pipeline itself is silenced by its key as the rule (`uploads`, `stale:bitcoin`).
* **unsilence** ends a silence, named as it was set.
* **acknowledge**: the open incidents of the coin and rule tell no more that they got worse, only that they are over; a
  trouble (its key as the rule) is not reminded of.
* **revive_webhooks**: webhooks that Slack had refused for good are tried again. A new webhook in the connection needs
  none of this.

**Started** by hand only, with params.

**Reads** and **writes** the warehouse; nothing else changes.

**When it fails** the task's log says what cannot be done, and what there is.

**Safe to run again:** yes; a silence set again takes the new time and reason.
"""

from airflow.sdk import Param, dag, get_current_context, task

from coinwatch.app import open_operator
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
        "action": Param("silence", enum=["silence", "unsilence", "acknowledge", "revive_webhooks"]),
        "coin": Param("*", type="string", description="CoinGecko id, or * for all"),
        "rule": Param("*", type="string", description="a rule, * for all, or the key of a trouble"),
        "hours": Param(
            6, type="number", exclusiveMinimum=0, description="how long to be silent, unless until is given"
        ),
        "until": Param(None, type=["null", "string"], format="date-time", description="when the silence ends"),
        "reason": Param("", type="string", description="why, and who looks after it"),
    },
)
def manage_alerts():
    """Silences and acknowledgements."""

    @task
    def carry_out() -> str:
        """Do what the params of the run say."""
        return open_operator().carry_out(get_current_context()["params"])

    carry_out()


manage_alerts()
