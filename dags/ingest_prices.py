"""Every hour: the price of each coin, from CoinGecko to the raw log.

Asks CoinGecko once for the prices of all coins, archives the answer, and appends it to the raw log of each
coin. Missing hours of the last `COINWATCH_HISTORY_DAYS` are found and taken in from history; the first run takes in
all of them.

**Started** by the clock, on the hour; also by hand or by a backfill. A run is about its *as-of time*: its logical date,
or the moment it was triggered. A run whose as-of time is more than 15 minutes ago takes the price of the full hour
nearest to it from history.

**Reads** CoinGecko through the connection `coingecko_default` (without it: keyless), in the pool `coingecko`.
**Writes** snapshots and their manifest into the archive, rows into `<coin>_raw.csv`, and an event on the asset of each
raw log, which starts `process_prices`.

**When it fails** the task's log says what CoinGecko answered and what to do; the answer itself is in the archive, with
`refused` in its name. An hour that was missed is filled in by a later run: nothing has to be repaired by hand.

**Safe to run again:** yes, any task, at any time, also twice at once. A snapshot is written once for each as-of time,
and a row stands in a raw log once.
"""

from airflow.sdk import TriggerRule, dag, get_current_context, task

from coinwatch.app import open_ingest
from coinwatch.assets import RAW_ASSETS
from coinwatch.events import publish_added
from coinwatch.tasks import COINGECKO_POOL, DEFAULT_ARGS, START_DATE, as_of_time


@dag(
    schedule="0 * * * *",
    start_date=START_DATE,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    doc_md=__doc__,
    tags=["ingest"],
)
def ingest_prices():
    """From CoinGecko to the raw log."""

    @task(pool=COINGECKO_POOL)
    def fetch_prices() -> list[str]:
        """Archive the price of each coin as of the run's time."""
        return open_ingest().fetch_prices(as_of_time())

    @task(outlets=RAW_ASSETS)
    def append_raw_log(snapshots: list[str]) -> None:
        """Append the archived prices to the raw log of each coin."""
        publish_added(open_ingest().append_rows(snapshots), RAW_ASSETS, get_current_context())

    @task
    def find_gaps() -> list[dict[str, str]]:
        """Find the hours that the raw logs do not have."""
        return open_ingest().history.find_gaps(as_of_time())

    @task(pool=COINGECKO_POOL, map_index_template="{{ task.op_kwargs['window']['coin'] }}")
    def fetch_history(window: dict[str, str]) -> str | None:
        """Archive the missing hours of one coin from history."""
        return open_ingest().history.fetch_history(as_of_time(), window)

    # What came for one coin is taken in, even if another coin's history could not be had.
    @task(outlets=RAW_ASSETS, trigger_rule=TriggerRule.ALL_DONE_MIN_ONE_SUCCESS)
    def append_history(snapshots: list[str | None]) -> None:
        """Append the archived hours to the raw log of each coin."""
        publish_added(open_ingest().append_history(filter(None, snapshots)), RAW_ASSETS, get_current_context())

    append_raw_log(fetch_prices())
    append_history(fetch_history.expand(window=find_gaps()))


ingest_prices()
