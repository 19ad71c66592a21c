"""When hours are missing: fill them from CoinGecko's history.

Requests the missing hours of each coin, up to 90 days with one request, archives the answers, and appends their rows to
the raw log of each coin. The first run fetches the whole history. Hours that CoinGecko has no price for are requested
again after a backoff that doubles (table `gaps` in the warehouse: `retry_at`, `reason`).

**Started** by the asset `missing_hours`, when `ingest_prices` has found gaps; also by hand. By hand with params: only
these `coins` (comma-separated), only the hours from `start` to `end`, checked once more and without waiting for the
backoff.

**Reads** CoinGecko through the connection `coingecko_default`, in the pool `coingecko`, beside the live poll. A run
ends within an hour; the newest hours come first, and if hours are left, it starts the next run.
**Writes** snapshots into the archive, rows into `<coin>_raw.csv`, an event on the asset `raw_prices`, which starts
`process_prices`, and one on `missing_hours` if hours are left.

**When it fails** the task's log has CoinGecko's answer and what to do. The hours stay open, and the next hour's run
requests them again.

**Safe to run again:** yes, any task, at any time, also twice at once.
"""

from airflow.sdk import Param, TriggerRule, dag, get_current_context, task

from coinwatch.app import App
from coinwatch.assets import GAPS_FOUND, MISSING_HOURS, RAW_PRICES
from coinwatch.events import publish, publish_through
from coinwatch.tasks import COINGECKO_POOL, DEFAULT_ARGS, START_DATE, as_of_time


@dag(
    schedule=[MISSING_HOURS],
    start_date=START_DATE,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    doc_md=__doc__,
    tags=["ingest"],
    params={
        "coins": Param("", type="string", description="CoinGecko ids, comma-separated; empty for all"),
        "start": Param(None, type=["null", "string"], format="date-time", description="first hour; empty for all"),
        "end": Param(None, type=["null", "string"], format="date-time", description="end of the hours; empty: now"),
    },
)
def heal_history():
    """From CoinGecko's history to the raw log."""

    @task
    def plan_history() -> list[list[dict[str, str]]]:
        """Plan the requests for missing hours."""
        from coinwatch.ingest import history

        return history.plan_history(App(), as_of_time(), get_current_context()["params"])

    # One of the pool's slots: the live poll never waits for it.
    @task(pool=COINGECKO_POOL, max_active_tis_per_dag=1)
    def fetch_history(windows: list[dict[str, str]]) -> int:
        """Archive missing hours from history."""
        from coinwatch.ingest import history

        return history.fetch_history(App(), as_of_time(), windows)

    # Archived answers are appended also if a later request failed.
    @task(outlets=[RAW_PRICES, GAPS_FOUND], trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS)
    def append_history(chunks: list[list[dict[str, str]]]) -> None:
        """Append the archived hours to the raw log of each coin."""
        from coinwatch.ingest import history

        added, left = history.append_history(App(), as_of_time(), chunks)
        publish(RAW_PRICES, added)
        publish_through(GAPS_FOUND, MISSING_HOURS, left)

    chunks = plan_history()
    fetch_history.expand(windows=chunks) >> append_history(chunks)


heal_history()
