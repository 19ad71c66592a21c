"""The steps of `heal_history`: fill gaps from CoinGecko's history.

Hours without a price never fail a run, and are requested again after a backoff that doubles.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from coinwatch.archive.snapshots import Answer, snapshot_name
from coinwatch.coingecko.answers import read_history
from coinwatch.coingecko.response_errors import BeyondPlan, CoinGeckoError, UnknownCoin
from coinwatch.errors import InvalidAction
from coinwatch.ingest import gaps
from coinwatch.ingest.stored import stored_times
from coinwatch.record import RawPrice
from coinwatch.times import HOUR, ceil_hour, compact_time, format_time, parse_time

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

SETTLED = timedelta(hours=2)
"""After this long the history has an hour if it ever will: CoinGecko caches it for half an hour."""

WINDOW_MIN = timedelta(days=2)
WINDOW_MAX = timedelta(days=90)
"""Windows of this length have points about an hour apart; shorter ones may not, longer ones have one a day."""

NOW_MARGIN = timedelta(minutes=5)
"""The last point of a window that ends so close to now is the price of now."""

CHUNKS_MAX = 6
"""So a run ends within the hour, and its rows are appended; the rest is left to the next run, which it starts."""

CHUNK_TIME = timedelta(minutes=8)
"""A chunk has no more requests than fit into this time: a kill costs no more than a chunk's plan."""

CHUNK_REQUESTS_MAX = 100

Window = dict[str, str]
"""``coin``, and the ``first`` and ``last`` of its hours to request: one request."""


def plan_history(app: "App", as_of: datetime, params: Mapping[str, Any] | None = None) -> list[list[Window]]:
    """Return the requests for the hours that are due, in at most 6 chunks; the rest is left to the next run.

    Args:
        app: The app.
        as_of: The run's as-of time.
        params: ``coins`` (comma-separated), ``start`` and ``end``: if any is set, only these hours; they are checked
            once more, and requested whatever their backoff.
    """
    coins, span = _read_params(app, as_of, params or {})
    currency = app.settings.currency
    with app.warehouse.begin() as connection:
        if params and any(params.values()):
            gaps.check_hours(app, connection, {span: coins})
            gaps.end_backoff(connection, currency, coins, span)
        due = gaps.due_gaps(connection, currency, coins, app.clock(), span)
    per_chunk = max(1, min(CHUNK_REQUESTS_MAX, int(CHUNK_TIME / app.client.meter.interval)))
    planned: list[tuple[str, int, Window]] = []
    for coin, rows in groupby(due, key=lambda row: row.coin):
        runs = [(max(row.first_hour, span[0]), min(row.last_hour, span[1] - HOUR)) for row in rows]
        missing = sum((last - first) // HOUR + 1 for first, last in runs)
        planned += [(window["last"], missing, window) for window in split_windows(coin, runs)]
    # The newest hours first, and of as new ones those of the coin that has the least.
    planned.sort(key=lambda plan: plan[:2], reverse=True)
    windows = [window for *_, window in planned][: CHUNKS_MAX * per_chunk]
    log.info("%d of %d requests are planned; the rest is left to the next run", len(windows), len(planned))
    return [windows[number : number + per_chunk] for number in range(0, len(windows), per_chunk)]


def _read_params(app: "App", as_of: datetime, params: Mapping[str, Any]) -> tuple[list[str], gaps.Span]:
    wanted = {coin.strip() for coin in (params.get("coins") or "").split(",") if coin.strip()}
    unknown = sorted(wanted - set(app.settings.coins))
    if unknown:
        raise InvalidAction(f"{', '.join(unknown)}: not in COINWATCH_COINS ({', '.join(app.settings.coins[:20])})")
    try:
        start, end = (parse_time(params[name]) if params.get(name) else None for name in ("start", "end"))
    except ValueError as error:
        raise InvalidAction(f"start and end: {error}") from None
    # The run that found the gaps is a little older than this one, and looked back a little further.
    since = ceil_hour(start) if start else gaps.earliest_hour(app, as_of - gaps.LATE)
    until = ceil_hour(min(end or as_of, as_of))
    return [coin for coin in app.settings.coins if not wanted or coin in wanted], (since, until)


def split_windows(coin: str, runs: Iterable[tuple[datetime, datetime]]) -> list[Window]:
    """Return the windows of 90 days at most that have some runs of hours, given by first and last, in order."""
    windows: list[tuple[datetime, datetime]] = []
    for run_first, last in runs:
        first = run_first
        while first <= last:
            start = windows.pop()[0] if windows and first < windows[-1][0] + WINDOW_MAX else first
            end = min(last, start + WINDOW_MAX - HOUR)
            windows.append((start, end))
            first = end + HOUR
    return [{"coin": coin, "first": format_time(first), "last": format_time(last)} for first, last in windows]


def fetch_history(app: "App", as_of: datetime, windows: Sequence[Window]) -> int:
    """Archive the missing hours of some windows, one request for each; a retry continues where this try ended.

    Returns:
        How many windows have a snapshot.
    """
    archived = 0
    for number, window in enumerate(windows):
        rest = (len(windows) - number) * app.client.meter.interval
        log.info("request %d of %d, about %.0f minutes to go", number + 1, len(windows), rest / timedelta(minutes=1))
        coin, name = window["coin"], _snapshot_of(as_of, window)
        hours = _hours_to_request(app, coin, parse_time(window["first"]), parse_time(window["last"]))
        try:
            if hours and not app.archive.has(name):
                app.archive.save(name, *request_hours(app, as_of, name, coin, hours))
        except (BeyondPlan, UnknownCoin) as error:
            _give_up(app, coin, hours, error, name)
        if app.archive.has(name):
            _note_answer(app, coin, hours, name)
            archived += 1
    return archived


def _snapshot_of(as_of: datetime, window: Window) -> str:
    return snapshot_name(as_of, f"history-{window['coin']}-{compact_time(parse_time(window['first']))}")


def _hours_to_request(app: "App", coin: str, first: datetime, last: datetime) -> set[datetime]:
    """Return the hours of a window that are still missing; another run may have stored some since the plan."""
    currency, now = app.settings.currency, app.clock()
    filled = {"state": "filled", "filled_at": now, "retry_at": None, "reason": ""}
    with app.warehouse.begin() as connection:
        stored = stored_times(app, [coin], first, last, connection)[coin]
        gaps.change_hours(connection, coin, currency, stored, lambda _: filled)
        due = gaps.due_gaps(connection, currency, [coin], now, (first, last + HOUR))
    return gaps.hours_of(due, first, last + HOUR)


def _give_up(app: "App", coin: str, hours: AbstractSet[datetime], error: CoinGeckoError, name: str) -> None:
    state = "beyond_plan" if isinstance(error, BeyondPlan) else "no_data"
    first, last = min(hours), max(hours)
    if state == "beyond_plan" and last - first > WINDOW_MIN:
        # The limit lies somewhere in this window: the newer half is left to the next run.
        hours = {hour for hour in hours if hour <= first + (last - first) / 2}
    log.warning("%s: %d hours are not available: %s", coin, len(hours), error)
    change = gaps.refuse(state, str(error), name, app.clock())
    with app.warehouse.begin() as connection:
        gaps.change_hours(connection, coin, app.settings.currency, hours, change)


def _note_answer(app: "App", coin: str, hours: AbstractSet[datetime], name: str) -> None:
    now = app.clock()
    found = {row.moment for row in app.archive.rows(name)}
    # A younger hour may still come, and stays open.
    absent = {hour for hour in hours - found if now - hour >= SETTLED}
    reason = "CoinGecko's history has no price within 30 minutes of these hours"
    with app.warehouse.begin() as connection:
        gaps.change_hours(connection, coin, app.settings.currency, found, gaps.answer(name))
        gaps.change_hours(connection, coin, app.settings.currency, absent, gaps.refuse("no_data", reason, name, now))
    if absent:
        log.warning("%s: CoinGecko's history has no price for %d of %d hours", coin, len(absent), len(hours))


def append_history(
    app: "App", as_of: datetime, chunks: Sequence[Sequence[Window]]
) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Append the archived hours of planned windows to the raw logs, and mark their gaps as filled.

    Returns:
        The timestamps of the new rows by coin; and what is left for the next run, as ``find_gaps`` returns it. Without
        new rows nothing is: what fails waits for the next hour.
    """
    from coinwatch.ingest.poll import append_raw_log

    names = [_snapshot_of(as_of, window) for windows in chunks for window in windows]
    archived = [name for name in names if app.archive.has(name)]
    added = append_raw_log(app, archived)
    with app.warehouse.begin() as connection:
        gaps.fill(connection, archived, app.clock())
    return added, gaps.count_due(app, as_of) if any(added.values()) else {}


def request_hours(
    app: "App", as_of: datetime, name: str, coin: str, hours: Collection[datetime]
) -> tuple[Answer, list[RawPrice]]:
    """Request full hours of one coin; the rows are those of them that CoinGecko has.

    Raises:
        CoinGeckoError: The answer is an error; it is archived as refused.
    """
    now = app.clock()
    start, end = request_window(hours, now)
    answer = app.client.market_chart_range(coin, app.settings.currency, start, end)
    ends_now = end >= now - NOW_MARGIN
    try:
        rows = read_history(answer, coin, app.settings.currency, hours, name, ends_now=ends_now)
    except CoinGeckoError as error:
        archive_refused(app, as_of, f"refused-{coin}", error)
        raise
    return answer, rows


def archive_refused(app: "App", as_of: datetime, suffix: str, error: CoinGeckoError) -> None:
    """Archive an answer that is an error, and let all workers back off if it has Retry-After."""
    if error.retry_after:
        app.client.meter.back_off(error.retry_after)
    if error.answer is not None:
        log.error("the answer is archived as snapshot %s", app.archive.save_refused(as_of, suffix, error.answer))


def request_window(hours: Collection[datetime], now: datetime) -> tuple[datetime, datetime]:
    """Return the window of a request that has the points nearest to some hours: 2 to 90 days, and not beyond now.

    It grows forward as long as it can: backward it might reach beyond the plan.
    """
    start = min(hours) - HOUR / 2
    end = min(max(max(hours) + HOUR / 2, start + WINDOW_MIN), now)
    return max(min(start, end - WINDOW_MIN), end - WINDOW_MAX), end
