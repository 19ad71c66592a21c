"""By hand: list, release or reject quarantined values.

A value that is not a positive number, or is more than 25 % away from the price before it, is quarantined: the raw log
has it, but it is not stored as a price. Three polls in a row that agree are released automatically. Any other value
waits here for a decision; nothing else waits for it.

* **list** logs the quarantined values.
* **release** stores a value as a price. Statistics and alerts from its time on are computed again.
* **reject** keeps a value out for good.

**Started** by hand only, with params: action, coin, ts (as the list has it; `*` for all), and reason.

**Reads** and **writes** the warehouse; if a value was released, an event on the asset `raw_prices`
starts `process_prices`.

**When it fails** the task's log says why, and which values are quarantined.

**Safe to run again:** yes; a decided value is not quarantined any more.
"""

from airflow.sdk import Param, dag, get_current_context, task

from coinwatch.app import App
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
        "reason": Param("", type="string", description="why, and who decided"),
    },
)
def review_quarantine():
    """List, release or reject quarantined values."""

    @task(outlets=[PRICES_RELEASED])
    def decide() -> None:
        """Do the action in the run's params."""
        from coinwatch.quarantine import held

        context = get_current_context()
        released = held.review_quarantine(App(), context["params"], context["run_id"])
        publish_through(PRICES_RELEASED, RAW_PRICES, describe(released))

    decide()


review_quarantine()
