"""The steps of `ingest_prices`: from the API up to the raw log.

Each step can be repeated at any time: what it wrote before is found, and not written again.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from coinwatch.errors import CoinwatchError
from coinwatch.records import RawPrice
from coinwatch.settings import HISTORY_DAYS_MAX, Settings
from coinwatch.sources.answers import Condition, full_hours, read_history, read_quotes
from coinwatch.sources.coingecko import COINS_PER_REQUEST, CoinGeckoClient
from coinwatch.sources.errors import BeyondPlan, CoinGeckoError, UnknownCoin
from coinwatch.storage.archive import Answer, Archive, snapshot_name
from coinwatch.storage.raw_log import append_raw_prices, stored_timestamps
from coinwatch.times import HOUR, compact_time, format_time, nearest_hour, parse_time

log = logging.getLogger(__name__)

LATE = timedelta(minutes=15)
"""From this age of the as-of time on, the price of now would be wrong for it."""

CLOCK_SKEW = timedelta(minutes=5)
"""How far a scheduler's clock may be ahead of a worker's."""

WINDOW_MIN = timedelta(days=2)
WINDOW_MAX = timedelta(days=90)
"""Windows of this length have points about an hour apart; shorter ones may not, longer ones have one a day."""

NOW_MARGIN = timedelta(minutes=5)
"""A window that ends so close to now has the price of now as its last point."""

SETTLED = timedelta(hours=2)
"""After this long the history has an hour if it ever will: CoinGecko caches it for half an hour."""


class NoPrice(CoinwatchError):
    """No coin has a price."""


class NotYetInHistory(CoinwatchError):
    """The history does not have so young an hour yet."""


class FutureAsOf(CoinwatchError):
    """A price of the future was asked for."""

    retryable = False


@dataclass(frozen=True, slots=True)
class Ingest:
    """The collaborators of the steps.

    Attributes:
        settings: What the environment decides.
        client: Asks CoinGecko.
        archive: Keeps what it says.
        clock: Tells the time.
    """

    settings: Settings
    client: CoinGeckoClient
    archive: Archive
    clock: Callable[[], datetime]

    def fetch_prices(self, as_of: datetime) -> list[str]:
        """Archive the prices of all coins as of a time.

        Returns:
            The names of the snapshots that have them.

        Raises:
            CoinwatchError: There is no price for any coin; the answers that say so are archived.
        """
        age = self.clock() - as_of
        if age < -CLOCK_SKEW:
            raise FutureAsOf(f"the as-of time {format_time(as_of)} lies in the future: there is no price for it yet")
        coins = self.settings.coins
        names: list[str] = []
        for number, start in enumerate(range(0, len(coins), COINS_PER_REQUEST), start=1):
            page = coins[start : start + COINS_PER_REQUEST]
            name = snapshot_name(as_of, f"page-{number}" if number > 1 else "")
            if self.archive.has(name):
                names.append(name)
            elif age > LATE:
                names += self._fetch_late(as_of, page)
            else:
                self._fetch_page(as_of, name, page)
                names.append(name)
        return names

    def _fetch_page(self, as_of: datetime, name: str, coins: Sequence[str]) -> None:
        answer = self.client.simple_price(coins, self.settings.currency)
        try:
            rows, conditions = read_quotes(answer, coins, self.settings.currency, as_of, name)
        except CoinGeckoError as error:
            self._keep_refused(as_of, "refused", error)
            raise
        _report(conditions, as_of)
        if not rows:
            # Not under the run's own name: a retry shall ask again.
            self.archive.save_refused(as_of, "refused", answer)
            raise NoPrice(_no_price(conditions))
        self.archive.save(name, answer, rows)

    def _fetch_late(self, as_of: datetime, coins: Sequence[str]) -> list[str]:
        """Take the price of the full hour nearest to a past time from history, coin by coin."""
        hour = nearest_hour(as_of)
        log.info("%s is past: the price of %s is taken from history", format_time(as_of), format_time(hour))
        names, conditions = [], []
        for coin in coins:
            name = snapshot_name(as_of, f"late-{coin}")
            try:
                if not self.archive.has(name):
                    self._fetch_late_hour(as_of, name, coin, hour)
            except (BeyondPlan, UnknownCoin) as error:
                conditions.append(Condition(coin, str(error)))
                continue
            if self.archive.rows(name):
                names.append(name)
            else:
                conditions.append(Condition(coin, f"CoinGecko's history has no price near {format_time(hour)}"))
        _report(conditions, as_of)
        if not names:
            raise NoPrice(_no_price(conditions))
        return names

    def _fetch_late_hour(self, as_of: datetime, name: str, coin: str, hour: datetime) -> None:
        answer, rows = self._ask_history(as_of, name, coin, [hour])
        if not rows and self.clock() - hour < SETTLED:
            self.archive.save_refused(as_of, f"refused-{coin}", answer)
            raise NotYetInHistory(
                f"CoinGecko's history of {coin} does not have {format_time(hour)} yet; it is asked again later"
            )
        self.archive.save(name, answer, rows)

    def _ask_history(
        self, as_of: datetime, name: str, coin: str, hours: Sequence[datetime]
    ) -> tuple[Answer, list[RawPrice]]:
        """Ask for full hours of one coin; the rows are those of them that CoinGecko has."""
        now = self.clock()
        start, end = _window(hours, now)
        answer = self.client.market_chart_range(coin, self.settings.currency, start, end)
        ends_now = end >= now - NOW_MARGIN
        try:
            rows = read_history(answer, coin, self.settings.currency, hours, name, ends_now=ends_now)
        except CoinGeckoError as error:
            self._keep_refused(as_of, f"refused-{coin}", error)
            raise
        return answer, rows

    def _keep_refused(self, as_of: datetime, suffix: str, error: CoinGeckoError) -> None:
        if error.answer is not None:
            name = self.archive.save_refused(as_of, suffix, error.answer)
            log.error("the answer is kept as snapshot %s", name)

    def append_rows(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Append the rows of snapshots to the raw logs.

        Returns:
            The hours that were added, by coin; a coin whose rows are all there already has none.
        """
        by_coin: dict[str, list[RawPrice]] = defaultdict(list)
        for name in names:
            for row in self.archive.rows(name):
                by_coin[row.coin].append(row)
        added = {}
        for coin, rows in by_coin.items():
            new = append_raw_prices(self.settings.raw_path(coin), rows)
            log.info("%s: %d of %d rows are new", self.settings.raw_path(coin), len(new), len(rows))
            added[coin] = [row.timestamp for row in new]
        return added

    def find_gaps(self, as_of: datetime) -> list[dict[str, str]]:
        """Find the windows of history that have every hour missing from the raw logs.

        Full hours count, from ``COINWATCH_HISTORY_DAYS`` ago up to the as-of time. There is one window for each coin
        and 90 days at most.

        Returns:
            Windows to map over: coin, and first and last missing hour.
        """
        windows = []
        for coin in self.settings.coins:
            missing = self._missing_hours(coin, self._earliest(as_of), as_of)
            while missing:
                end = missing[0] + WINDOW_MAX
                window = [hour for hour in missing if hour < end]
                missing = missing[len(window) :]
                windows.append({"coin": coin, "first": format_time(window[0]), "last": format_time(window[-1])})
                log.info("%s: %d hours are missing from %s to %s", coin, len(window), window[0], window[-1])
        return windows

    def fetch_history(self, as_of: datetime, window: dict[str, str]) -> str | None:
        """Archive the missing hours of one window.

        Returns:
            The name of the snapshot; none if nothing is missing any more.
        """
        coin, first, last = window["coin"], parse_time(window["first"]), parse_time(window["last"])
        name = snapshot_name(as_of, f"history-{coin}-{compact_time(first)}")
        if not self.archive.has(name):
            # Another run may have filled the gap since it was found.
            missing = self._missing_hours(coin, max(first, self._earliest(as_of)), last + HOUR)
            if not missing:
                return None
            self.archive.save(name, *self._ask_history(as_of, name, coin, missing))
        return name

    def _missing_hours(self, coin: str, start: datetime, end: datetime) -> list[datetime]:
        stored = stored_timestamps(self.settings.raw_path(coin), format_time(start))
        return [hour for hour in full_hours(start, end) if format_time(hour) not in stored]

    def _earliest(self, as_of: datetime) -> datetime:
        # An hour less than the most that CoinGecko gives: the limit moves on while we ask.
        days = min(timedelta(days=self.settings.history_days), timedelta(days=HISTORY_DAYS_MAX) - HOUR)
        # A past run looks no further back than one of now: it fills gaps, and does not lengthen the history.
        return max(as_of, self.clock() - LATE) - days


def _window(hours: Sequence[datetime], now: datetime) -> tuple[datetime, datetime]:
    """The window of a request that has the points nearest to some hours: 2 to 90 days, and not beyond now."""
    end = min(max(hours) + HOUR / 2, now)
    start = min(min(hours) - HOUR / 2, end - WINDOW_MIN)
    return max(start, end - WINDOW_MAX), end


def _report(conditions: Sequence[Condition], as_of: datetime) -> None:
    for condition in conditions:
        log.error("no price of %s at %s: %s", condition.coin, format_time(as_of), condition.reason)


def _no_price(conditions: Sequence[Condition]) -> str:
    return "no coin has a price: " + "; ".join(f"{condition.coin}: {condition.reason}" for condition in conditions)
