"""Tasks that failed for good, and their recovery: one message each, whatever happens to the warehouse meanwhile.

A file for each failed task lies in the data folder until it goes through again. So a task that never failed has nothing
to look up, and a failure is known even if the warehouse is what failed.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from coinwatch.errors import CoinwatchError
from coinwatch.files import locked, replace_file
from coinwatch.health.troubles import end_trouble, open_troubles, raise_trouble
from coinwatch.settings import FAILURES_CONN_ID, SLACK_CONN_ID
from coinwatch.slack.deliver import UNDELIVERED, Delivery, Slack
from coinwatch.slack.messages import TroubleNote, trouble_message
from coinwatch.slack.outbox import mark_delivered
from coinwatch.slack.webhook import SlackError, WebhookDead, post
from coinwatch.times import format_time, parse_time
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import WarehouseError

log = logging.getLogger(__name__)

WAREHOUSE_FAILURES = (SQLAlchemyError, WarehouseError, CoinwatchError, OSError)
"""What opening or using the warehouse can come to."""

_TEXT_MAX = 600


@dataclass(frozen=True, slots=True)
class TaskRun:
    """A task of a run.

    Attributes:
        dag_id: Its Dag.
        task_id: The task.
        label: Of a mapped task, which one; otherwise empty.
        url: Its log in Airflow's pages, if that is known.
    """

    dag_id: str
    task_id: str
    label: str
    url: str | None

    @classmethod
    def of(cls, context: Any) -> Self:
        """The task that Airflow calls back about."""
        task = context["ti"]
        index = getattr(task, "map_index", -1)
        label = "" if index is None or index < 0 else str(getattr(task, "rendered_map_index", None) or index)
        return cls(task.dag_id, task.task_id, label, getattr(task, "log_url", None))

    @property
    def name(self) -> str:
        """``ingest_prices.fetch_history[bitcoin]``."""
        return f"{self.dag_id}.{self.task_id}" + (f"[{self.label}]" if self.label else "")

    @property
    def key(self) -> str:
        """The key of the trouble that it fails."""
        return f"task:{self.name}"


@dataclass(frozen=True, slots=True)
class Mark:
    """What is known of a task that failed, as its file tells it.

    Attributes:
        key: Of the trouble.
        title: In a few words.
        what: What happened, and to whom.
        action: What to do.
        link: The task's log.
        since: When it failed first.
        told_at: When Slack was told of it directly, because the warehouse could not be had; none if it was not.
    """

    key: str
    title: str
    what: str
    action: str
    link: str | None
    since: datetime
    told_at: datetime | None

    @classmethod
    def of(cls, run: TaskRun, failure: object, at: datetime) -> Self:
        """The mark of a task that has just failed."""
        what, action = explain(failure)
        return cls(run.key, f"Task {run.name} fails", what, action, run.url, at, None)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a mark.

        Raises:
            OSError: There is none.
            ValueError: The file is no mark.
        """
        content = json.loads(path.read_text(encoding="utf-8"))
        content["since"] = parse_time(content["since"])
        content["told_at"] = parse_time(content["told_at"]) if content["told_at"] else None
        try:
            return cls(**content)
        except TypeError as error:
            raise ValueError(f"{path} is no mark of a failed task: {error}") from None

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        content = asdict(self) | {"since": format_time(self.since)}
        content["told_at"] = format_time(self.told_at) if self.told_at else None
        replace_file(path, json.dumps(content).encode())

    def store(self, connection: Connection, at: datetime) -> None:
        """Raise the trouble; what Slack was told directly is told no more."""
        title, what, action, link = self.title, self.what, self.action, self.link
        raise_trouble(connection, self.key, title=title, what=what, action=action, link=link, at=at)
        if self.told_at is not None:
            c = schema.trouble_messages.c
            query = schema.trouble_messages.select().where(c.key == self.key, c.delivery == "pending")
            ids = [row.id for row in connection.execute(query) if row.state == "begun"]
            mark_delivered(connection, schema.trouble_messages, ids, "told directly", self.told_at)


def explain(failure: object) -> tuple[str, str]:
    """What a failure says to people and what they can do; of other libraries no text, which may hold secrets."""
    name = type(failure).__name__
    if isinstance(failure, CoinwatchError):
        said = f"{name}: {str(failure)[:_TEXT_MAX]}"
        if failure.retryable:
            return said, "Nothing at once: later runs try again, and this is told to be over when one goes through."
        return said, "What the message says; then clear the task, or wait for the next run."
    if isinstance(failure, BaseException) and type(failure).__module__.startswith("coinwatch."):
        return f"{name}: {str(failure)[:_TEXT_MAX]}", "What the message says; then clear the task."
    if isinstance(failure, OSError) and failure.strerror:
        return f"{name}: {failure.strerror}.", "Read the task's log, mend it, and clear the task."
    if isinstance(failure, BaseException):
        return f"{name}; the task's log says more.", "Read the task's log, mend it, and clear the task."
    return (
        "The task was ended from outside; the scheduler's log says more.",
        "Clear the task, or wait for the next run.",
    )


@dataclass(frozen=True, slots=True)
class Failures:
    """The collaborators of what is done about failed tasks.

    Attributes:
        folder: Where the marks lie.
        clock: Tells the time.
        open_delivery: Opens the warehouse and the channels.
        open_slack: Opens the channels alone.
        simulated: Whether the prices come from the sandbox.
    """

    folder: Path
    clock: Callable[[], datetime]
    open_delivery: Callable[[], Delivery]
    open_slack: Callable[[], Slack]
    simulated: bool

    def failed(self, run: TaskRun, failure: object) -> None:
        """A task has failed for good: mark it, and tell the operators if they do not know yet.

        Args:
            run: The task.
            failure: The exception, or what Airflow says instead.
        """
        if isinstance(failure, SlackError):
            self._cannot_deliver(run, failure)
            return
        path = mark_path(self.folder, run)
        with locked(path):
            mark = Mark.of(run, failure, self.clock())
            if path.exists():
                old = Mark.read(path)
                mark = replace(mark, since=old.since, told_at=old.told_at)
            mark.write(path)
            try:
                delivery = self.open_delivery()
                with _closing(delivery), delivery.engine.begin() as connection:
                    mark.store(connection, self.clock())
            except WAREHOUSE_FAILURES as error:
                log.error("the warehouse cannot be told of it (%s): %s", type(error).__name__, mark.what)
                if mark.told_at is None and self._tell_directly(mark):
                    replace(mark, told_at=self.clock()).write(path)
                return
        self._deliver()

    def recovered(self, run: TaskRun) -> None:
        """A task has gone through: if it had failed before, tell that this is over."""
        path = mark_path(self.folder, run)
        if not path.exists():
            return
        with locked(path):
            if not path.exists():
                return
            mark = Mark.read(path)
            try:
                delivery = self.open_delivery()
                with _closing(delivery), delivery.engine.begin() as connection:
                    mark.store(connection, mark.since)
                    end_trouble(connection, mark.key, self.clock(), "It has gone through again.")
            except WAREHOUSE_FAILURES as error:
                # The mark stays, so the next time that it goes through tells it.
                log.error("the warehouse cannot be told that it is over (%s)", type(error).__name__)
                return
            path.unlink()
        self._deliver()

    def _cannot_deliver(self, run: TaskRun, failure: SlackError) -> None:
        """That Slack does not answer is one trouble, whichever task finds it; delivery itself says when it is over."""
        if isinstance(failure, WebhookDead):
            return
        delivery = self.open_delivery()
        with _closing(delivery), delivery.engine.begin() as connection:
            raise_undelivered(connection, str(failure), self.clock(), run.url)
        if delivery.slack.failures is not None:
            self._deliver()

    def _deliver(self) -> None:
        delivery = self.open_delivery()
        with _closing(delivery):
            try:
                delivery.deliver_troubles()
            except SlackError as error:
                log.error("the operators could not be told now; it is tried again later: %s", error)

    def _tell_directly(self, mark: Mark) -> bool:
        """Post without the outbox, for want of a warehouse.

        Returns:
            Whether Slack took it.
        """
        slack = self.open_slack()
        note = TroubleNote(
            id=mark.key,
            state="begun",
            title=mark.title,
            what=mark.what,
            action=mark.action,
            link=mark.link,
            since=mark.since,
            raised_at=self.clock(),
        )
        for conn_id, webhook in ((FAILURES_CONN_ID, slack.failures), (SLACK_CONN_ID, slack.alerts)):
            if webhook is None:
                continue
            try:
                post(webhook, trouble_message([note], simulated=self.simulated), conn_id)
            except SlackError as error:
                log.error("nor can %s: %s", conn_id, error)
            else:
                return True
        return False


def raise_undelivered(connection: Connection, what: str, at: datetime, link: str | None = None) -> None:
    """Say that alerts cannot be delivered."""
    raise_trouble(
        connection,
        UNDELIVERED,
        title="Alerts do not reach Slack",
        what=what,
        action="Nothing while Slack is down: all of them come as soon as it answers. If it is up, check the connection "
        f"{SLACK_CONN_ID}. Until then they can be read in the table alerts.",
        at=at,
        link=link,
    )


def settle(connection: Connection, folder: Path) -> None:
    """Raise the troubles of marks that the warehouse could not be told of."""
    known = {trouble.key for trouble in open_troubles(connection)}
    for path in sorted(folder.glob("*.json")):
        mark = Mark.read(path)
        if mark.key not in known:
            mark.store(connection, mark.since)


def forget(folder: Path, key: str) -> None:
    """Take away the mark of a task that is not going to run again."""
    (folder / _name(key)).unlink(missing_ok=True)


def mark_path(folder: Path, run: TaskRun) -> Path:
    """The mark of a task."""
    return folder / _name(run.key)


def _name(key: str) -> str:
    return f"{quote(key, safe='')}.json"


@contextmanager
def _closing(delivery: Delivery) -> Iterator[None]:
    try:
        yield
    finally:
        delivery.engine.dispose()
