"""Failed tasks as pipeline issues: a failure reports one, `watch_feed` resolves it after a later success."""

import logging
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import Connection, Row
from sqlalchemy.exc import SQLAlchemyError

from coinwatch.errors import CoinwatchError
from coinwatch.health import issues
from coinwatch.settings import SLACK_CONN_ID
from coinwatch.slack import deliver
from coinwatch.slack.webhook import SlackError
from coinwatch.times import parse_time

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

PREFIX = "task:"

UNDELIVERED = "undelivered"

FORGET_AFTER = timedelta(days=2)
"""The issue of a task that has neither failed nor succeeded for this long is resolved: it may not exist any more."""

_TEXT_MAX = 600

_RUN_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00")
"""The time in a run id of Airflow's: when the run was due."""


def report_failure(app: "App", context: Mapping[str, Any]) -> None:
    """Report a failed task and notify operators at once; ``context`` is that of Airflow's ``on_failure_callback``."""
    task, error = context["ti"], context.get("exception")
    name, link = f"{task.dag_id}.{task.task_id}", task.log_url
    detail, action = explain(error)
    try:
        with app.warehouse.begin() as connection:
            if isinstance(error, SlackError):
                report_undelivered(connection, detail, app.clock(), link)
            else:
                key, title = f"{PREFIX}{name}", f"Task {name} failed"
                issues.report(connection, key, title=title, detail=detail, action=action, at=app.clock(), link=link)
    except (SQLAlchemyError, CoinwatchError, OSError) as unavailable:
        log.error("warehouse unavailable (%s): %s is not stored as an issue", type(unavailable).__name__, name)
        if name == "watch_feed.write_heartbeat" and isinstance(error, SQLAlchemyError):
            # check_feed of this run, or of the next one, fails for the same reason and is posted.
            return
        deliver.post_issue(app, title=f"Task {name} failed", detail=detail, action=action, link=link)
        return
    deliver.send_issues(app)


def report_undelivered(connection: Connection, detail: str, at: datetime, link: str | None = None) -> None:
    """Report that alerts are not delivered, unless a revoked webhook is the reason: that is an issue of its own."""
    if issues.open_issues(connection, "webhook:"):
        return
    issues.report(
        connection,
        UNDELIVERED,
        title="Alerts are not delivered",
        detail=detail,
        action=f"Nothing while Slack is down: they are sent once it is up. Otherwise check the connection "
        f"{SLACK_CONN_ID}. The table alerts has them.",
        at=at,
        link=link,
    )


def explain(error: object) -> tuple[str, str]:
    """Return what happened and what to do. The text of a library's error may contain a secret: its class is named."""
    if isinstance(error, CoinwatchError):
        detail = f"{type(error).__name__}: {str(error)[:_TEXT_MAX]}"
        if error.retryable:
            return detail, "Nothing yet: later runs retry, and the issue is resolved when one succeeds."
        return detail, "Do what the message says, then clear the task or wait for the next run."
    action = "Read the task's log, fix the cause, then clear the task or wait for the next run."
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror}.", action
    if isinstance(error, BaseException):
        return f"{type(error).__name__}; see the task's log.", action
    return "The task was stopped from outside; see the scheduler's log.", "Clear the task, or wait for the next run."


def resolve_succeeded(app: "App", now: datetime) -> None:
    """Resolve the issues of tasks that succeeded in a later run, or have not run for two days."""
    with app.warehouse.begin() as connection:
        failed = issues.open_issues(connection, PREFIX)
    for issue in failed:
        dag_id, _, task_id = issue.key.removeprefix(PREFIX).partition(".")
        # A mapped task has a state for each of its instances.
        succeeded = [
            run_id
            for run_id, states in app.task_states(dag_id, task_id).items()
            if states and all(state == "success" for state in states.values())
        ]
        if any(_is_later(run_id, issue) for run_id in succeeded):
            detail = "A later run succeeded."
        elif now - issue.seen_at >= FORGET_AFTER:
            detail = "The task has neither failed nor succeeded for two days."
        else:
            continue
        with app.warehouse.begin() as connection:
            issues.resolve(connection, issue.key, now, detail)


def _is_later(run_id: str, issue: Row[Any]) -> bool:
    """Return whether a run was due after the failure, or is the failed run itself, which was cleared."""
    due = _RUN_TIME.search(run_id)
    return f"/runs/{quote(run_id)}/" in (issue.link or "") or bool(due and parse_time(due[0]) > issue.seen_at)
