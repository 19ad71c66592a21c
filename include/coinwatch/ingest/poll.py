"""The steps of `ingest_prices`: from the API up to the raw log.

Each step can be repeated at any time: what it wrote before is found, and not written again.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from coinwatch.archive.raw_log import append_raw_prices, stored_timestamps
from coinwatch.archive.snapshots import Archive, snapshot_name
from coinwatch.coingecko.answers import Condition, judge_freshness, read_quotes
from coinwatch.coingecko.budget import Budget
from coinwatch.coingecko.client import COINS_PER_REQUEST, CoinGeckoClient, requests_per_hour
from coinwatch.coingecko.errors import BeyondPlan, CoinGeckoError, UnknownCoin
from coinwatch.errors import CoinwatchError
from coinwatch.ingest.conditions import last_updates, store_conditions
from coinwatch.ingest.gaps import SETTLED
from coinwatch.ingest.history import LATE, History, keep_refused
from coinwatch.quarantine.held import Held, hold
from coinwatch.record import RawPrice
from coinwatch.settings import Settings
from coinwatch.times import format_time, nearest_hour

log = logging.getLogger(__name__)

CLOCK_SKEW = timedelta(minutes=5)
"""How far a scheduler's clock may be ahead of a worker's."""


class NoPrice(CoinwatchError):
    """No coin has a price."""


class NoKnownCoin(NoPrice):
    """CoinGecko knows none of the coins: asking again cannot help."""

    retryable = False


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
        warehouse: Opens it; prices are archived even if that cannot be done.
        clock: Tells the time.
    """

    settings: Settings
    client: CoinGeckoClient
    archive: Archive
    warehouse: Callable[[], Engine]
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
        self._report_budget()
        return names

    def budget(self) -> Budget:
        """What this month's requests to CoinGecko come to."""
        return self.client.meter.budget(requests_per_hour(len(self.settings.coins)))

    def _report_budget(self) -> None:
        try:
            budget = self.budget()
        except OperationalError as error:
            log.error("the warehouse cannot be reached, so the month's requests are not known: %s", error.orig)
            return
        if budget.is_short:
            log.warning("%s: watch fewer coins, pull less often by hand, or take a larger plan", budget)
        else:
            log.info("%s", budget)

    def _fetch_page(self, as_of: datetime, name: str, coins: Sequence[str]) -> None:
        answer = self.client.simple_price(coins, self.settings.currency)
        try:
            rows, conditions = read_quotes(answer, coins, self.settings.currency, as_of, name)
        except CoinGeckoError as error:
            keep_refused(self.archive, self.client, as_of, "refused", error)
            raise
        # Not under the run's own name if there is no price: a retry shall ask again.
        kept = name if rows else self.archive.save_refused(as_of, "refused", answer)
        self._note_conditions(as_of, coins, rows, conditions, kept)
        if not rows:
            unknown = all(condition.name == "unknown_id" for condition in conditions)
            reasons = {condition.coin: condition.reason for condition in conditions}
            raise (NoKnownCoin if unknown else NoPrice)(_no_price(reasons))
        self.archive.save(name, answer, rows)

    def _note_conditions(
        self,
        as_of: datetime,
        coins: Sequence[str],
        rows: Sequence[RawPrice],
        conditions: Sequence[Condition],
        snapshot: str,
    ) -> None:
        """Remember what is wrong with the feed, and tell of what is new: once, and not in every hour that it lasts."""
        currency = self.settings.currency
        try:
            with self.warehouse().begin() as connection:
                before = last_updates(connection, coins, currency, as_of)
                found = [*conditions, *judge_freshness(rows, before, LATE)]
                changes = store_conditions(connection, coins, currency, as_of, found, snapshot)
                held = [
                    Held(each.coin, currency, as_of, "live", each.value, each.reason, snapshot)
                    for each in conditions
                    if each.value
                ]
                hold(connection, held, self.clock())
        except OperationalError as error:
            # The price in hand matters more; what lasts is seen again by the next pull.
            log.error("the warehouse cannot be reached, so conditions are not remembered: %s", error.orig)
            for condition in conditions:
                log.error("%s: %s", condition.coin, condition.reason)
            return
        left = [row.coin for row in rows]
        for condition in changes.begun:
            rest = f". Ids that are left: {_some(left)}" if condition.name == "unknown_id" else ""
            log.error("%s at %s: %s%s", condition.coin, format_time(as_of), condition.reason, rest)
        lasting = [f"{condition.coin} ({condition.name})" for condition in found if condition not in changes.begun]
        if lasting:
            log.warning("still: %s", _some(lasting))
        for coin, condition_name in changes.ended:
            log.info("%s: %s is over", coin, condition_name)

    def _fetch_late(self, as_of: datetime, coins: Sequence[str]) -> list[str]:
        """Take the price of the full hour nearest to a past time from history, coin by coin."""
        hour = nearest_hour(as_of)
        log.info("%s is past: the price of %s is taken from history", format_time(as_of), format_time(hour))
        names: list[str] = []
        reasons: dict[str, str] = {}
        there = 0
        for coin in coins:
            name = snapshot_name(as_of, f"late-{coin}")
            if not self.archive.has(name):
                if self._has_hour(coin, hour):
                    there += 1
                    continue
                try:
                    self._fetch_late_hour(as_of, name, coin, hour)
                except (BeyondPlan, UnknownCoin) as error:
                    reasons[coin] = str(error)
                    continue
            if self.archive.rows(name):
                names.append(name)
            else:
                reasons[coin] = f"CoinGecko's history has no price near {format_time(hour)}"
        for coin, reason in reasons.items():
            log.error("no price of %s at %s: %s", coin, format_time(as_of), reason)
        if there:
            log.info("%d coins have a price of %s already", there, format_time(hour))
        elif not names:
            raise NoPrice(_no_price(reasons))
        return names

    def _has_hour(self, coin: str, hour: datetime) -> bool:
        timestamp = format_time(hour)
        return timestamp in stored_timestamps(self.settings.raw_path(coin), timestamp)

    def _fetch_late_hour(self, as_of: datetime, name: str, coin: str, hour: datetime) -> None:
        answer, rows = self.history.ask(as_of, name, coin, [hour])
        if not rows and self.clock() - hour < SETTLED:
            self.archive.save_refused(as_of, f"refused-{coin}", answer)
            raise NotYetInHistory(
                f"CoinGecko's history of {coin} does not have {format_time(hour)} yet; it is asked again later"
            )
        self.archive.save(name, answer, rows)

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

    def append_history(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Append the rows of history snapshots to the raw logs, and note that their gaps are healed.

        Returns:
            As ``append_rows`` does.
        """
        added = self.append_rows(names)
        self.history.note_healed(added)
        return added

    @property
    def history(self) -> History:
        """The history branch, with the same collaborators."""
        return History(self.settings, self.client, self.archive, self.warehouse, self.clock)


def _some(names: Sequence[str], most: int = 20) -> str:
    """A list that stays short enough for a message."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "none"


def _no_price(reasons: Mapping[str, str]) -> str:
    told = [f"{coin}: {reason}" for coin, reason in list(reasons.items())[:10]]
    return "no coin has a price: " + "; ".join(told) + ("; …" if len(reasons) > len(told) else "")
