"""Every hour: the price of each coin, from CoinGecko to the raw log.

Polls CoinGecko once for the prices of all coins, archives the answer, and appends its rows to the raw log of each coin.
Then looks for missing hours of the last `COINWATCH_HISTORY_DAYS`: if there are any, `heal_history` fills them.

**Started** by the clock, on the hour; also by hand or by a backfill. A run is about its *as-of time*: its logical date,
or the moment it was triggered. A run whose as-of time is more than 15 minutes ago takes the price of the full hour
nearest to it from history.

**Reads** CoinGecko through the connection `coingecko_default` (without it: keyless), in the pool `coingecko`.
**Writes** snapshots and their manifest into the archive, rows into `<coin>_raw.csv`, an event on the asset
`raw_prices`, which starts `process_prices`, and one on `missing_hours` if hours are missing, which starts
`heal_history`.

**When it fails** the task's log has CoinGecko's answer and what to do; the answer itself is in the archive, with
`refused` in its name. A missed hour is filled by a later run: nothing has to be repaired by hand.

**Safe to run again:** yes, any task, at any time, also twice at once. A snapshot is written once for each as-of time,
and a row is in a raw log once.
"""

from airflow.sdk import dag, task

from coinwatch.app import App
from coinwatch.assets import GAPS_FOUND, MISSING_HOURS, RAW_PRICES
from coinwatch.events import publish, publish_through
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

    # Before the requests of heal_history in the pool: a live price can only be fetched now.
    @task(pool=COINGECKO_POOL, priority_weight=100)
    def fetch_prices() -> list[str]:
        """Archive the price of each coin as of the run's time."""
        from coinwatch.ingest import poll

        return poll.fetch_prices(App(), as_of_time())

    @task(outlets=[RAW_PRICES])
    def append_raw_log(snapshots: list[str]) -> None:
        """Append the archived prices to the raw log of each coin."""
        from coinwatch.ingest import poll

        publish(RAW_PRICES, poll.append_raw_log(App(), snapshots))

    @task(outlets=[GAPS_FOUND])
    def find_gaps() -> None:
        """Find the hours that the raw logs do not have."""
        from coinwatch.ingest import gaps

        publish_through(GAPS_FOUND, MISSING_HOURS, gaps.find_gaps(App(), as_of_time()))

    append_raw_log(fetch_prices())
    find_gaps()


ingest_prices()
