"""The steps of `watch_feed`: is there a fresh price, has everything been delivered and uploaded, and who knows of it.

Each check says that its trouble is there, or that it is not; `alerting.troubles` sees to it that people hear of it
once.
"""

import json
import logging
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, func, select

from coinwatch.alerts.incidents import WATCH_FEED, see_quarantine, store_transitions
from coinwatch.files import locked, replace_file
from coinwatch.health.task_failures import forget, raise_undelivered, settle
from coinwatch.health.troubles import end_trouble, open_troubles, raise_trouble
from coinwatch.settings import FAILED_TASKS, Settings
from coinwatch.slack.deliver import UNDELIVERED, delivery
from coinwatch.slack.messages import told_duration, told_time
from coinwatch.slack.outbox import WAITING
from coinwatch.slack.webhook import SlackError
from coinwatch.times import floor_hour, format_time
from coinwatch.warehouse import schema

if TYPE_CHECKING:
    from coinwatch.app import App
    from coinwatch.coingecko.requests import Budget
    from coinwatch.rules import RuleBook

log = logging.getLogger(__name__)

STALE_AFTER = timedelta(hours=2)
"""Without a fresh price for so long, a coin is not being watched."""

LATE_AFTER = timedelta(minutes=30)
"""The run of an hour has stored its price by then, all retries included."""

UNDELIVERED_AFTER = timedelta(hours=1)
"""Alerts that wait for longer than all retries take."""

BACKLOG_AFTER = timedelta(hours=2)
"""Uploads that have been waiting for so long have been left by more than one run."""

FORGET_AFTER = timedelta(days=2)
"""A failed task that has neither failed nor gone through for so long does not run any more."""

HEARTBEAT_FILE = "heartbeat.json"

_CALL_TIMEOUT = 10

Check = Callable[[Connection, datetime], None]
"""(transaction, time) → raises or ends its troubles."""


@dataclass(frozen=True, slots=True)
class Watch:
    """The collaborators of the steps.

    Attributes:
        settings: What the environment decides.
        warehouse: Where everything is stored.
        rules: The rules and windows.
        clock: Tells the time.
        budget: Tells what this month's requests to CoinGecko come to; none if nobody counts them.
        more_checks: What else is looked at, by whoever knows how.
    """

    settings: Settings
    warehouse: Engine
    rules: "RuleBook"
    clock: Callable[[], datetime]
    budget: "Callable[[], Budget] | None" = None
    more_checks: Sequence[Check] = field(default=())

    def check_feed(self) -> list[str]:
        """Look at everything once.

        Returns:
            The troubles that are there, by their titles.
        """
        now = self.clock()
        checks: tuple[Check, ...] = (
            self._failed_tasks,
            self._fresh_prices,
            self._late_run,
            self._undelivered,
            self._uploads,
            self._held_values,
            *self._budget_check(),
            *self.more_checks,
        )
        for check in checks:
            # Each in a transaction of its own: what one has found is kept, whatever the next one comes to.
            with self.warehouse.begin() as connection:
                check(connection, now)
        with self.warehouse.begin() as connection:
            troubles = open_troubles(connection)
        for trouble in troubles:
            log.warning("%s, since %s: %s", trouble.title, told_time(trouble.since), trouble.what)
        return [trouble.title for trouble in troubles]

    def _fresh_prices(self, connection: Connection, now: datetime) -> None:
        newest = self._newest(connection)
        for coin in self.settings.coins:
            key, last = f"stale:{coin}", newest.get(coin)
            if last is not None and now - last <= STALE_AFTER:
                end_trouble(connection, key, now, f"There is a price of {told_time(last)}.")
                continue
            said = "there has never been one" if last is None else f"the last one is of {told_time(last)}"
            raise_trouble(
                connection,
                key,
                title=f"No fresh price of {coin}",
                what=f"{coin} is not being watched: {said}.",
                action="Look at the newest runs of ingest_prices and process_prices: the log of the task that is red "
                "says what happened. If there are no runs, check that both Dags are on and that the scheduler lives.",
                at=now,
                # A coin that is new gets its time.
                lasting=STALE_AFTER if last is None else timedelta(0),
            )
        for trouble in open_troubles(connection):
            kind, _, coin = trouble.key.partition(":")
            if kind == "stale" and coin not in self.settings.coins:
                end_trouble(connection, trouble.key, now, f"{coin} is not on the watch list any more.")

    def _newest(self, connection: Connection) -> dict[str, datetime]:
        """The newest price of each coin that has one."""
        p = schema.prices.c
        newest = {}
        for coin in self.settings.coins:
            query = select(func.max(p.ts)).where(p.coin == coin, p.currency == self.settings.currency)
            last = connection.execute(query).scalar_one()
            if last is not None:
                newest[coin] = last
        return newest

    def _late_run(self, connection: Connection, now: datetime) -> None:
        hour, newest = floor_hour(now), self._newest(connection)
        last = max(newest.values(), default=None)
        if last is None:
            return
        if last >= hour:
            end_trouble(connection, "late", now, f"The price of {told_time(last)} is there.")
        elif now - hour >= LATE_AFTER and not self._reason_is_known(connection, newest):
            raise_trouble(
                connection,
                "late",
                title="The run of the hour is late",
                what=f"{told_duration(hour, now)} after the full hour there is no price of {told_time(hour)}, and no "
                "task has failed.",
                action="Look whether a run of ingest_prices or process_prices is still going on or was never started: "
                "a Dag that is off, a scheduler that is down, or a pool without a free slot.",
                at=now,
            )

    @staticmethod
    def _reason_is_known(connection: Connection, newest: Mapping[str, datetime]) -> bool:
        """Whether another trouble tells already why there is no price."""
        keys = {trouble.key for trouble in open_troubles(connection)}
        return any(key.startswith("task:") for key in keys) or keys >= {f"stale:{coin}" for coin in newest}

    @staticmethod
    def _undelivered(connection: Connection, now: datetime) -> None:
        a = schema.alerts.c
        query = select(func.count(), func.min(a.raised_at), func.max(a.delivery_error)).where(a.delivery == "pending")
        count, oldest, error = connection.execute(query).one()
        if not count:
            end_trouble(connection, UNDELIVERED, now, "Nothing waits any more.")
        elif now - oldest >= UNDELIVERED_AFTER and not _has_dead_webhook(connection):
            why = f" {error}" if error else " The task send_slack_alerts has not tried."
            raise_undelivered(connection, f"{count} alerts wait, the oldest since {told_time(oldest)}.{why}", now)

    def _uploads(self, connection: Connection, now: datetime) -> None:
        if not self.settings.s3_bucket:
            return
        waiting = []
        partitions = connection.execute(select(func.count()).select_from(schema.pending_uploads)).scalar_one()
        if partitions:
            waiting.append(f"{partitions} partitions")
        unread = self._unread_manifest(connection)
        if unread:
            waiting.append(f"the snapshots in the last {unread} bytes of the manifest")
        if not waiting:
            end_trouble(connection, "uploads", now, "S3 has got everything.")
            return
        raise_trouble(
            connection,
            "uploads",
            title="S3 does not get everything",
            what=f"{' and '.join(waiting)} are not in s3://{self.settings.s3_bucket} yet.",
            action="Look at the log of upload_to_s3 in the newest run of process_prices. Nothing is lost: all of it is "
            "uploaded once S3 takes it.",
            at=now,
            lasting=BACKLOG_AFTER,
        )

    def _held_values(self, connection: Connection, now: datetime) -> None:
        """Alert of values that were held back where no price came that would have started `process_prices`."""
        transitions = see_quarantine(connection, self.settings.currency, now)
        store_transitions(connection, transitions, self.rules, at=now, run_id=WATCH_FEED)

    def _budget_check(self) -> Sequence[Check]:
        """The check of the requests, which are counted in a transaction of their own."""
        if self.budget is None:
            return ()
        budget = self.budget()

        def check(connection: Connection, now: datetime) -> None:
            if not budget.is_short:
                end_trouble(connection, "budget", now, f"{budget}.")
                return
            raise_trouble(
                connection,
                "budget",
                title="Requests to CoinGecko get short",
                what=f"{budget}.",
                action="Watch fewer coins, start fewer runs by hand, or take a larger plan; if the limit is another "
                "one, set COINWATCH_COINGECKO_MONTHLY_LIMIT. At the limit CoinGecko answers 429 until the month ends.",
                at=now,
            )

        return (check,)

    def _unread_manifest(self, connection: Connection) -> int:
        manifest = self.settings.archive_path / "manifest.jsonl"
        p = schema.log_positions.c
        prefix = f"{self.settings.s3_prefix}/" if self.settings.s3_prefix else ""
        query = select(p.position).where(p.log == f"manifest:{prefix}{self.settings.s3_bucket}")
        read = connection.execute(query).scalar_one_or_none() or 0
        return max(0, (manifest.stat().st_size if manifest.exists() else 0) - read)

    def _failed_tasks(self, connection: Connection, now: datetime) -> None:
        folder = self.settings.data_dir / FAILED_TASKS
        settle(connection, folder)
        for trouble in open_troubles(connection):
            if trouble.key.startswith("task:") and now - trouble.last_seen >= FORGET_AFTER:
                end_trouble(connection, trouble.key, now, "It has neither failed nor run for two days.")
                forget(folder, trouble.key)

    def write_heartbeat(self) -> str:
        """Show that the pipeline lives: in a file, and to whoever waits for a call.

        There is no call while the operators cannot be told of a trouble: its absence is then the last way to tell them.

        Returns:
            What was done, in words.
        """
        now = self.clock()
        with self.warehouse.begin() as connection:
            state = self._state(connection, now)
        path = self.settings.data_dir / HEARTBEAT_FILE
        with locked(path):
            replace_file(path, json.dumps(state, indent=2).encode() + b"\n")
        url = self.settings.heartbeat_url.get_secret_value()
        if not url:
            return f"written to {path}"
        if state["untold_troubles"]:
            log.error("the heartbeat is not sent on, because no channel can tell the operators of the open troubles")
            return f"written to {path}, and not sent on"
        return f"written to {path}, and {_call(url)}"

    def _state(self, connection: Connection, now: datetime) -> dict[str, Any]:
        troubles = open_troubles(connection)
        a, m = schema.alerts.c, schema.trouble_messages.c
        untold = select(func.count()).where(
            m.delivery.in_(WAITING),
            m.raised_at <= now - UNDELIVERED_AFTER,
            m.trouble_id.in_([trouble.id for trouble in troubles]),
        )
        newest = self._newest(connection)
        return {
            "at": format_time(now),
            "ok": not troubles,
            "troubles": [
                {"key": row.key, "title": row.title, "what": row.what, "since": format_time(row.since)}
                for row in troubles
            ],
            "untold_troubles": connection.execute(untold).scalar_one(),
            "waiting_alerts": connection.execute(select(func.count()).where(a.delivery.in_(WAITING))).scalar_one(),
            "newest_price": {
                coin: format_time(newest[coin]) if coin in newest else None for coin in self.settings.coins
            },
        }


def _has_dead_webhook(connection: Connection) -> bool:
    return any(trouble.key.startswith("webhook:") for trouble in open_troubles(connection))


def _call(url: str) -> str:
    """Call the URL that is a secret: whoever knows it can pretend that all is well."""
    try:
        # Not by requests: urllib3 logs the path.
        with urllib.request.urlopen(url, timeout=_CALL_TIMEOUT) as answer:  # noqa: S310 - the settings allow http and https only
            said = f"sent on (answer {answer.status})"
    except (OSError, HTTPException, ValueError) as error:
        # Its text may hold the URL. Whoever waits for the call will notice.
        code = getattr(error, "code", None)
        said = f"could not be sent on ({type(error).__name__}{f' {code}' if code else ''})"
        log.warning("the heartbeat %s", said)
    return said


def deliver_waiting(app: "App") -> int:
    """Deliver what Slack does not have yet; if it does not answer now, the next watch tries again.

    Returns:
        Alerts that were delivered.

    Raises:
        SlackError: Slack refused it, so an operator has to act.
    """
    try:
        return delivery(app).deliver()
    except SlackError as error:
        if not error.retryable:
            raise
        log.warning("%s", error)
        return 0
