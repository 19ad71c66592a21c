"""The checks of `watch_feed`: stale prices, late runs, undelivered alerts, pending uploads, the request budget.

Each check reports its issue or resolves it.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from coinwatch import status
from coinwatch.alerts.incidents import WATCH_FEED, see_quarantine, store_transitions
from coinwatch.coingecko.requests import Budget
from coinwatch.health import issues
from coinwatch.health.task_failures import PREFIX, UNDELIVERED, report_undelivered, resolve_succeeded
from coinwatch.settings import Settings
from coinwatch.slack import deliver
from coinwatch.slack.webhook import SlackError
from coinwatch.times import floor_hour, format_time

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

STALE_AFTER = timedelta(hours=2)
"""Age from which a coin's newest price is stale."""

LATE_AFTER = timedelta(minutes=30)
"""Time after the full hour by which a run, with all its retries, has stored its prices."""

UNDELIVERED_AFTER = timedelta(hours=1)
"""Longer than all retries of a delivery take."""

BACKLOG_AFTER = timedelta(hours=2)
"""After more than one run that did not upload everything."""

_LOOK = (
    "Open the newest runs of ingest_prices and process_prices: the log of a failed task says what happened. If there "
    "are no runs, check that both Dags are on and that the scheduler is running."
)


def check_feed(app: "App") -> list[str]:
    """Make every check once, and return the titles of the open pipeline issues."""
    now, budget = app.clock(), status.read_budget(app)
    resolve_succeeded(app, now)
    with app.warehouse.begin() as connection:
        newest = status.newest_prices(connection, app.settings)
        _stale_prices(connection, app.settings.coins, newest, now)
        _late_run(connection, max(newest.values(), default=None), now)
        _undelivered_alerts(connection, now)
        _pending_uploads(connection, app.settings, now)
        if budget is not None:
            _request_budget(connection, budget, now)
        # process_prices does not run for an hour that has no other price.
        transitions = see_quarantine(connection, app.settings.currency, now)
        store_transitions(connection, transitions, app.rules, at=now, run_id=WATCH_FEED)
        found = issues.open_issues(connection)
    for issue in found:
        log.warning("%s, since %s: %s", issue.title, format_time(issue.opened_at), issue.detail)
    return [issue.title for issue in found]


def _stale_prices(connection: Connection, coins: Sequence[str], newest: Mapping[str, datetime], now: datetime) -> None:
    stale = [coin for coin in coins if coin in newest and now - newest[coin] > STALE_AFTER]
    empty = [coin for coin in coins if coin not in newest]
    if stale:
        issues.report(
            connection,
            "stale",
            title=f"No fresh price of {status.named(stale)}",
            detail=f"{len(stale)} of {len(coins)} coins have no price of the last 2 hours. Newest price of "
            f"{status.named([f'{coin}: {format_time(newest[coin])}' for coin in stale])}.",
            action=_LOOK,
            at=now,
            coins=stale,
        )
    else:
        issues.resolve(connection, "stale", now, "All coins have a fresh price.")
    if empty:
        issues.report(
            connection,
            "no_price",
            title=f"No price yet of {status.named(empty)}",
            detail=f"{len(empty)} of {len(coins)} coins never had a price.",
            action=_LOOK,
            at=now,
            grace=STALE_AFTER,
            coins=empty,
        )
    else:
        issues.resolve(connection, "no_price", now, "All coins have a price.")


def _late_run(connection: Connection, newest: datetime | None, now: datetime) -> None:
    hour = floor_hour(now)
    if newest is None:
        return
    if newest >= hour:
        issues.resolve(connection, "late", now, f"The price of {format_time(newest)} is stored.")
    # Stale prices and failed tasks have issues of their own.
    elif now - hour >= LATE_AFTER and now - newest <= STALE_AFTER and not issues.open_issues(connection, PREFIX):
        issues.report(
            connection,
            "late",
            title="The hourly run is late",
            detail=f"{(now - hour) // timedelta(minutes=1)} minutes after the full hour there is no price of "
            f"{format_time(hour)}, and no task failed.",
            action="Check whether a run of ingest_prices or process_prices is still running or never started: the "
            "Dag is off, the scheduler is down, or a pool has no free slot.",
            at=now,
        )


def _undelivered_alerts(connection: Connection, now: datetime) -> None:
    found = status.undelivered(connection)
    if found.oldest is None:
        issues.resolve(connection, UNDELIVERED, now, "All alerts are delivered.")
    elif now - found.oldest >= UNDELIVERED_AFTER:
        why = found.error or "The task send_slack_alerts has not tried."
        detail = f"{found.pending} alerts are pending, the oldest since {format_time(found.oldest)}. {why}"
        report_undelivered(connection, detail, now)


def _pending_uploads(connection: Connection, settings: Settings, now: datetime) -> None:
    backlog = status.upload_backlog(connection, settings)
    if not backlog:
        issues.resolve(connection, "uploads", now, "Everything is uploaded.")
        return
    issues.report(
        connection,
        "uploads",
        title="Uploads to S3 are pending",
        detail=f"{backlog} are not in s3://{settings.s3_bucket}.",
        action="Read the log of upload_to_s3 in the newest run of process_prices. Nothing is lost: the next run that "
        "reaches S3 uploads everything.",
        at=now,
        grace=BACKLOG_AFTER,
    )


def _request_budget(connection: Connection, budget: Budget, now: datetime) -> None:
    if not budget.is_short:
        issues.resolve(connection, "budget", now, f"{budget}.")
        return
    issues.report(
        connection,
        "budget",
        title="The request budget runs out",
        detail=f"{budget}.",
        action="Watch fewer coins, start fewer runs by hand, or use a larger plan. If the plan allows more, set "
        "COINWATCH_COINGECKO_MONTHLY_LIMIT. At the limit CoinGecko answers 429 until the month ends.",
        at=now,
    )


def deliver_waiting(app: "App") -> int:
    """Send the alerts and pipeline issues that are due, and return how many alerts were delivered.

    Raises:
        SlackError: An operator has to act. If only Slack is down, the next run of `watch_feed` retries.
    """
    try:
        return deliver.send_slack_alerts(app)
    except SlackError as error:
        if not error.retryable:
            raise
        log.warning("%s", error)
        return 0
