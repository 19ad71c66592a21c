"""The steps of `ingest_prices`: from the API to the raw log.

Each step can be repeated at any time: it finds what it wrote before, and does not write it again.
"""

import logging
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from coinwatch.archive.raw_log import append_raw_prices
from coinwatch.archive.snapshots import snapshot_name
from coinwatch.coingecko.answers import Reject, read_quotes
from coinwatch.coingecko.requests import COINS_PER_REQUEST, budget
from coinwatch.coingecko.response_errors import BeyondPlan, CoinGeckoError, UnknownCoin
from coinwatch.errors import CoinwatchError
from coinwatch.files import sync_files
from coinwatch.health import issues
from coinwatch.ingest.gaps import LATE
from coinwatch.ingest.history import SETTLED, archive_refused, request_hours
from coinwatch.ingest.stored import read_loaded, stored_times
from coinwatch.quarantine.held import Held, hold
from coinwatch.record import RawPrice
from coinwatch.times import format_time, nearest_hour
from coinwatch.warehouse.engine import optional_warehouse

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

CLOCK_SKEW = timedelta(minutes=5)
"""How far a scheduler's clock may be ahead of a worker's."""

UNKNOWN_COINS = "unknown_coins"
"""Key of the pipeline issue."""

UNKNOWN_GRACE = timedelta(hours=2)
"""Three hourly answers in a row without a coin are no accident."""

LATE_COINS_MAX = 50
"""A late hour of more coins is left to heal_history: one request for each coin would delay the next live poll."""

SNAPSHOTS_AT_ONCE = 50
"""Snapshots whose rows are in memory at a time: one of history has 2,160."""


class NoPrice(CoinwatchError):
    """No coin has a price."""


class NoKnownCoin(NoPrice):
    """CoinGecko knows none of the coins."""

    retryable = False


class NotYetInHistory(CoinwatchError):
    """The history does not have so young an hour yet."""


class FutureAsOf(CoinwatchError):
    """The as-of time lies in the future."""

    retryable = False


def fetch_prices(app: "App", as_of: datetime) -> list[str]:
    """Archive the prices of all coins as of a time; return the names of the snapshots that have them."""
    age = app.clock() - as_of
    if age < -CLOCK_SKEW:
        raise FutureAsOf(f"the as-of time {format_time(as_of)} lies in the future")
    coins = app.settings.coins
    names: list[str] = []
    late: list[str] = []
    rejects: list[Reject] = []
    for number, start in enumerate(range(0, len(coins), COINS_PER_REQUEST), start=1):
        page = coins[start : start + COINS_PER_REQUEST]
        name = snapshot_name(as_of, f"page-{number}" if number > 1 else "")
        if app.archive.has(name):
            priced = {row.coin for row in app.archive.rows(name)}
            rejects += [Reject(coin, "no_price", "no price") for coin in page if coin not in priced]
            names.append(name)
        elif age > LATE:
            late += page
        else:
            has_prices, rejected = _fetch_page(app, as_of, name, page)
            names += [name] if has_prices else []
            rejects += rejected
    if late:
        late_names, rejects = _fetch_late(app, as_of, late)
        names += late_names
    else:
        _report_rejects(app, rejects)
    if rejects:
        log.warning("%d of %d coins have no price: %s", len(rejects), len(coins), _list(rejects))
    if not names and len(rejects) == len(coins):
        all_unknown = all(reject.kind == "unknown_id" for reject in rejects)
        raise (NoKnownCoin if all_unknown else NoPrice)(f"no coin has a price: {_list(rejects)}")
    _log_budget(app)
    return names


def _fetch_page(app: "App", as_of: datetime, name: str, coins: Sequence[str]) -> tuple[bool, list[Reject]]:
    """Archive the prices of up to 250 coins; return whether there are any, and the coins without one."""
    answer = app.client.simple_price(coins, app.settings.currency)
    try:
        rows, rejects = read_quotes(answer, coins, app.settings.currency, as_of, name)
    except CoinGeckoError as error:
        archive_refused(app, as_of, "refused", error)
        raise
    # An answer without any price does not get the run's own name: a retry polls again.
    archived = name if rows else app.archive.save_refused(as_of, "refused", answer)
    _quarantine(app, as_of, rejects, archived)
    if rows:
        app.archive.save(name, answer, rows)
    return bool(rows), rejects


def _quarantine(app: "App", as_of: datetime, rejects: Sequence[Reject], snapshot: str) -> None:
    values = [
        Held(reject.coin, app.settings.currency, as_of, "live", reject.value, reject.reason, snapshot)
        for reject in rejects
        if reject.value
    ]
    if values:
        # The other coins' prices matter more; the values are in the archive.
        consequence = f"{len(values)} values are not quarantined"
        with optional_warehouse(consequence), app.warehouse.begin() as connection:
            hold(connection, values, app.clock())


def _report_rejects(app: "App", rejects: Sequence[Reject]) -> None:
    """Report or resolve the pipeline issue of coins that CoinGecko does not know or has no price for."""
    missing = [reject for reject in rejects if not reject.value]
    now = app.clock()
    with optional_warehouse("coins without a price are not reported"), app.warehouse.begin() as connection:
        if not missing:
            issues.resolve(connection, UNKNOWN_COINS, now, "CoinGecko has a price for every coin.")
            return
        issues.report(
            connection,
            UNKNOWN_COINS,
            title=f"CoinGecko has no price for {len(missing)} of {len(app.settings.coins)} coins",
            detail=f"{_list(missing)}.",
            action="A coin was renamed or delisted: look for it on coingecko.com, and correct or remove its id in "
            "COINWATCH_COINS. The other coins are not affected.",
            at=now,
            grace=UNKNOWN_GRACE,
        )


def _list(rejects: Sequence[Reject], most: int = 20) -> str:
    listed = [f"{reject.coin} ({reject.reason})" for reject in rejects[:most]]
    return ", ".join(listed) + (f" and {len(rejects) - most} more" if len(rejects) > most else "")


def _log_budget(app: "App") -> None:
    with optional_warehouse("the month's requests are unknown"):
        month = budget(app)
        if month.is_short:
            log.warning("%s: watch fewer coins, poll less often by hand, or choose a larger plan", month)
        else:
            log.info("%s", month)


def _fetch_late(app: "App", as_of: datetime, coins: Sequence[str]) -> tuple[list[str], list[Reject]]:
    """Archive the price of the full hour nearest to a past time from history, coin by coin.

    Returns:
        Snapshots with a price, and the coins without one; a coin whose hour is stored already, or is left to
        ``heal_history``, is in neither.
    """
    hour = nearest_hour(as_of)
    log.info("%s is past: prices of %s come from history", format_time(as_of), format_time(hour))
    stored = stored_times(app, coins, hour, hour)
    names: list[str] = []
    rejects: list[Reject] = []
    if sum(hour not in stored[coin] for coin in coins) > LATE_COINS_MAX:
        log.warning(
            "%s is left to heal_history, which requests many hours of a coin at once; beyond COINWATCH_HISTORY_DAYS "
            "trigger it with the params start and end",
            format_time(hour),
        )
        return names, rejects
    for coin in coins:
        name = snapshot_name(as_of, f"late-{coin}")
        if not app.archive.has(name):
            if stored[coin]:
                continue
            try:
                _fetch_late_hour(app, as_of, name, coin, hour)
            except (BeyondPlan, UnknownCoin) as error:
                rejects.append(Reject(coin, "no_price", str(error)))
                continue
        if app.archive.rows(name):
            names.append(name)
        else:
            rejects.append(Reject(coin, "no_price", f"CoinGecko's history has no price near {format_time(hour)}"))
    return names, rejects


def _fetch_late_hour(app: "App", as_of: datetime, name: str, coin: str, hour: datetime) -> None:
    answer, rows = request_hours(app, as_of, name, coin, [hour])
    if not rows and app.clock() - hour < SETTLED:
        app.archive.save_refused(as_of, f"refused-{coin}", answer)
        raise NotYetInHistory(f"CoinGecko's history of {coin} does not have {format_time(hour)} yet; retry later")
    app.archive.save(name, answer, rows)


def append_raw_log(app: "App", names: Sequence[str]) -> dict[str, list[str]]:
    """Append the rows of snapshots to the raw logs; return the timestamps of the new rows by coin."""
    added: dict[str, list[str]] = defaultdict(list)
    for start in range(0, len(names), SNAPSHOTS_AT_ONCE):
        by_coin: dict[str, list[RawPrice]] = defaultdict(list)
        for name in names[start : start + SNAPSHOTS_AT_ONCE]:
            for row in app.archive.rows(name):
                by_coin[row.coin].append(row)
        moments = [row.moment for rows in by_coin.values() for row in rows]
        loaded = read_loaded(app, list(by_coin), min(moments), max(moments)) if moments else {}
        for coin, rows in by_coin.items():
            new = append_raw_prices(app.settings.raw_path(coin), rows, loaded.get(coin), sync=False)
            added[coin] += [row.timestamp for row in new]
        sync_files([app.settings.raw_path(coin) for coin in by_coin])
    log.info("%d rows of %d coins appended", sum(map(len, added.values())), len(added))
    return dict(added)
