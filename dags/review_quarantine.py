"""By hand: what is to become of values that were held back.

A value that cannot be a price (not a number, not positive, or more than 25 % away from the one before) is held back in
quarantine: it stands in the raw log and is no price. Three pulls in a row that agree release themselves; everything
else waits here, and harms nobody.

* **list** writes what is held back into the log.
* **release**: it is a price after all. Statistics and alerts from its time on are computed again.
* **reject**: it stays out for good, and is not asked about any more.

**Started** by hand only, with params: action, coin, ts (the time as the list has it; `*` for all), and reason.

**Reads** and **writes** the warehouse; if a value was released, an event on the asset `raw_prices`
starts `process_prices`.

**When it fails** the task's log says what cannot be done, and what there is.

**Safe to run again:** yes; what is decided is not held back any more.
"""

from airflow.sdk import Param, dag, get_current_context, task

from coinwatch.app import open_review
from coinwatch.assets import PRICES_RELEASED, RAW_PRICES
from coinwatch.events import describe, publish_through
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
        "action": Param("list", enum=["list", "release", "reject"]),
        "coin": Param("*", type="string", description="CoinGecko id, or * for all"),
        "ts": Param(
            "*", type="string", description="time of the value, for example 2026-11-22T10:00:00Z, or * for all"
        ),
        "reason": Param("", type="string", description="why, and who decided it"),
    },
)
def review_quarantine():
    """Release or reject what was held back."""

    @task(outlets=[PRICES_RELEASED])
    def decide() -> None:
        """List, release or reject values, as the params of the run say."""
        context = get_current_context()
        released = open_review().decide(context["params"], context["run_id"])
        publish_through(PRICES_RELEASED, RAW_PRICES, describe(released))

    decide()


review_quarantine()
