"""By hand: list, release or reject quarantined values.

A value that is not a positive number, or is more than 25 % away from the price before it, is quarantined: the raw log
has it, but it is not stored as a price. Three polls in a row that agree are released automatically. Any other value
waits here for a decision; nothing else waits for it.

* **list** logs the quarantined values.
* **release** stores a value as a price. Statistics and alerts from its time on are computed again.
* **reject** keeps a value out for good.

**Started** by hand only, with params: action, coin, ts (as the list has it; `*` for all), and reason.

**Reads** and **writes** the warehouse; an event on the raw asset of each coin with a released value starts
`process_prices`.

**When it fails** the task's log says why, and which values are quarantined.

**Safe to run again:** yes; a decided value is not quarantined any more.
"""

from airflow.sdk import Param, dag, get_current_context, task

from coinwatch.app import App
from coinwatch.assets import RAW_ASSETS
from coinwatch.events import publish_added
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

    @task(outlets=RAW_ASSETS)
    def decide() -> None:
        """Do the action in the run's params."""
        from coinwatch.quarantine import held

        publish_added(
            held.review_quarantine(App(), get_current_context()["params"], get_current_context()["run_id"]),
            RAW_ASSETS,
            get_current_context(),
        )

    decide()


review_quarantine()
