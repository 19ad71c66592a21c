"""The history branch of `ingest_prices`: finding the hours that a raw log does not have, and taking them in.

Every gap stands in the warehouse's ledger with what was tried. One that cannot be filled is asked for again after a
pause that doubles, so it costs no request every hour, and it never fails a run.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine

from coinwatch.archive.raw_log import stored_timestamps
from coinwatch.archive.snapshots import Answer, Archive, snapshot_name
from coinwatch.coingecko.answers import full_hours, read_history
from coinwatch.coingecko.client import CoinGeckoClient
from coinwatch.coingecko.errors import BeyondPlan, CoinGeckoError, RateLimited, UnknownCoin
from coinwatch.ingest.gaps import Fate, GapLedger, Refusal
from coinwatch.record import RawPrice
from coinwatch.settings import HISTORY_DAYS_MAX, Settings
from coinwatch.times import HOUR, compact_time, format_time, parse_time

log = logging.getLogger(__name__)

LATE = timedelta(minutes=15)
"""From this age of the as-of time on, the price of now would be wrong for it."""

WINDOW_MIN = timedelta(days=2)
WINDOW_MAX = timedelta(days=90)
"""Windows of this length have points about an hour apart; shorter ones may not, longer ones have one a day."""

NOW_MARGIN = timedelta(minutes=5)
"""A window that ends so close to now has the price of now as its last point."""


@dataclass(frozen=True, slots=True)
class History:
    """The collaborators of the steps.

    Attributes:
        settings: What the environment decides.
        client: Asks CoinGecko.
        archive: Keeps what it says.
        warehouse: Opens it; the ledger of gaps is in it.
        clock: Tells the time.
    """

    settings: Settings
    client: CoinGeckoClient
    archive: Archive
    warehouse: Callable[[], Engine]
    clock: Callable[[], datetime]

    def find_gaps(self, as_of: datetime) -> list[dict[str, str]]:
        """Find the windows of history that have every missing hour that is worth a request.

        Full hours count, from ``COINWATCH_HISTORY_DAYS`` ago up to the as-of time. There is one window for each coin
        and 90 days at most.

        Returns:
            Windows to map over: coin, and first and last missing hour.
        """
        now = self.clock()
        start = self._earliest(as_of)
        windows = []
        with self.warehouse().begin() as connection:
            ledger = GapLedger(connection, self.settings.currency)
            for coin in self.settings.coins:
                missing = self._missing_hours(coin, start, as_of)
                fates = ledger.see_missing(coin, missing, start, as_of, now)
                due = [hour for hour in missing if fates[hour].is_due(now)]
                if len(missing) > len(due):
                    log.info(
                        "%s: %d missing hours are in the pause before their next try", coin, len(missing) - len(due)
                    )
                for first, last in _windows(due):
                    log.info("%s: hours are missing from %s to %s", coin, format_time(first), format_time(last))
                    windows.append({"coin": coin, "first": format_time(first), "last": format_time(last)})
        return windows

    def fetch_history(self, as_of: datetime, window: dict[str, str]) -> str | None:
        """Archive the missing hours of one window.

        Returns:
            The name of the snapshot; none if nothing is missing any more, or nothing can be had: then the ledger of
            gaps says why.
        """
        coin, first, last = window["coin"], parse_time(window["first"]), parse_time(window["last"])
        name = snapshot_name(as_of, f"history-{coin}-{compact_time(first)}")
        # Another run may have filled the gap since it was found.
        missing = self._missing_hours(coin, max(first, self._earliest(as_of)), last + HOUR)
        if not self.archive.has(name):
            if not missing:
                return None
            try:
                self.archive.save(name, *self.ask(as_of, name, coin, missing))
            except (BeyondPlan, UnknownCoin) as error:
                self._give_up(coin, missing, error, name)
                return None
        self._note_answer(coin, missing, name)
        return name

    def _give_up(self, coin: str, missing: Sequence[datetime], error: CoinGeckoError, name: str) -> None:
        beyond = isinstance(error, BeyondPlan)
        if beyond and missing[-1] - missing[0] > WINDOW_MIN:
            # The limit lies somewhere in this window: the newer half is asked for by the next run.
            middle = missing[0] + (missing[-1] - missing[0]) / 2
            missing = [hour for hour in missing if hour <= middle]
        log.warning("%s: %d hours cannot be had: %s", coin, len(missing), error)
        state: Refusal = "beyond_plan" if beyond else "no_data"
        self._judge(coin, missing, lambda fate, _, now: fate.refused(now, state, str(error), name))

    def _note_answer(self, coin: str, missing: Sequence[datetime], name: str) -> None:
        found = {row.moment for row in self.archive.rows(name)}

        def judge(fate: Fate, hour: datetime, now: datetime) -> Fate:
            return fate.answered(now, name) if hour in found else fate.lacking(hour, now, name)

        self._judge(coin, missing, judge)
        lacking = len(set(missing) - found)
        if lacking:
            log.warning("%s: CoinGecko's history does not have %d of %d hours", coin, lacking, len(missing))

    def _judge(self, coin: str, hours: Sequence[datetime], judge: Callable[[Fate, datetime, datetime], Fate]) -> None:
        now = self.clock()
        with self.warehouse().begin() as connection:
            ledger = GapLedger(connection, self.settings.currency)
            fates = ledger.fates(coin, hours, now)
            ledger.change(coin, {hour: judge(fate, hour, now) for hour, fate in fates.items()})

    def note_healed(self, coins: Iterable[str]) -> None:
        """Tell the ledger which of its hours the raw logs have by now."""
        now = self.clock()
        with self.warehouse().begin() as connection:
            ledger = GapLedger(connection, self.settings.currency)
            for coin in coins:
                ledger.heal(coin, stored_timestamps(self.settings.raw_path(coin), ""), now)

    def ask(self, as_of: datetime, name: str, coin: str, hours: Sequence[datetime]) -> tuple[Answer, list[RawPrice]]:
        """Ask for full hours of one coin; the rows are those of them that CoinGecko has.

        Raises:
            CoinGeckoError: The answer is an error; it is archived as refused.
        """
        now = self.clock()
        start, end = request_window(hours, now)
        answer = self.client.market_chart_range(coin, self.settings.currency, start, end)
        ends_now = end >= now - NOW_MARGIN
        try:
            rows = read_history(answer, coin, self.settings.currency, hours, name, ends_now=ends_now)
        except CoinGeckoError as error:
            keep_refused(self.archive, self.client, as_of, f"refused-{coin}", error)
            raise
        return answer, rows

    def _missing_hours(self, coin: str, start: datetime, end: datetime) -> list[datetime]:
        stored = stored_timestamps(self.settings.raw_path(coin), format_time(start))
        return [hour for hour in full_hours(start, end) if format_time(hour) not in stored]

    def _earliest(self, as_of: datetime) -> datetime:
        # An hour less than the most that CoinGecko gives: the limit moves on while we ask.
        days = min(timedelta(days=self.settings.history_days), timedelta(days=HISTORY_DAYS_MAX) - HOUR)
        # A past run looks no further back than one of now: it fills gaps, and does not lengthen the history.
        return max(as_of, self.clock() - LATE) - days


def keep_refused(
    archive: Archive, client: CoinGeckoClient, as_of: datetime, suffix: str, error: CoinGeckoError
) -> None:
    """Archive an answer that gave no price, and let all workers wait if it asks for that."""
    if isinstance(error, RateLimited) and error.retry_after:
        client.meter.hold_off(error.retry_after)
    if error.answer is not None:
        name = archive.save_refused(as_of, suffix, error.answer)
        log.error("the answer is kept as snapshot %s", name)


def request_window(hours: Sequence[datetime], now: datetime) -> tuple[datetime, datetime]:
    """The window of a request that has the points nearest to some hours: 2 to 90 days, and not beyond now.

    It grows forward as long as it can: backward it might reach beyond what the plan allows.
    """
    start = min(hours) - HOUR / 2
    end = min(max(max(hours) + HOUR / 2, start + WINDOW_MIN), now)
    return max(min(start, end - WINDOW_MIN), end - WINDOW_MAX), end


def _windows(hours: Sequence[datetime]) -> list[tuple[datetime, datetime]]:
    """First and last of the hours that fit into one request, for each request."""
    windows = []
    left = list(hours)
    while left:
        fit = [hour for hour in left if hour < left[0] + WINDOW_MAX]
        windows.append((fit[0], fit[-1]))
        left = left[len(fit) :]
    return windows
