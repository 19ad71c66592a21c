"""The heartbeat: a file, and a call to a monitor outside that notices when it stops."""

import json
import logging
import urllib.request
from datetime import datetime
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row

from coinwatch import status
from coinwatch.files import replace_file
from coinwatch.health import issues
from coinwatch.health.checks import UNDELIVERED_AFTER
from coinwatch.times import format_time

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

HEARTBEAT_FILE = "heartbeat.json"

_CALL_TIMEOUT = 10


def write_heartbeat(app: "App") -> str:
    """Write the heartbeat file and call the URL of the settings.

    There is no call while operators cannot be notified of an open issue: then the monitor notifies them.

    Returns:
        What was done, for the log.
    """
    now = app.clock()
    with app.warehouse.begin() as connection:
        found = issues.open_issues(connection)
        late = [issue for issue in issues.due(connection, now) if _is_overdue(issue, now)]
        newest = status.newest_prices(connection, app.settings)
        undelivered = status.undelivered(connection)
    content = {
        "at": format_time(now),
        "ok": not found,
        "issues": [
            {"key": row.key, "title": row.title, "detail": row.detail, "since": format_time(row.opened_at)}
            for row in found
        ],
        "unnotified_issues": len(late),
        "undelivered_alerts": undelivered.pending + undelivered.not_configured,
        "newest_price": {coin: format_time(newest[coin]) if coin in newest else None for coin in app.settings.coins},
    }
    path = app.settings.data_dir / HEARTBEAT_FILE
    replace_file(path, json.dumps(content, indent=2).encode() + b"\n")
    url = app.settings.heartbeat_url.get_secret_value()
    if not url:
        return f"{path} written"
    if late:
        log.error("heartbeat URL not called: operators cannot be notified of %d open issues", len(late))
        return f"{path} written, URL not called"
    return f"{path} written, {_call(url)}"


def _is_overdue(issue: Row[Any], now: datetime) -> bool:
    overdue: bool = issue.notified_state != "open" and now - issue.notify_after >= UNDELIVERED_AFTER
    return issue.state == "open" and overdue


def _call(url: str) -> str:
    """Call a URL that is a secret, and return what came of it without the URL."""
    try:
        # Not by requests: urllib3 logs the path.
        with urllib.request.urlopen(url, timeout=_CALL_TIMEOUT) as answer:  # noqa: S310 - the settings allow http and https only
            return f"URL called (HTTP {answer.status})"
    except (OSError, HTTPException, ValueError) as error:
        # Its text may hold the URL. The monitor notices the missing call.
        code = getattr(error, "code", None)
        outcome = f"URL call failed ({type(error).__name__}{f' {code}' if code else ''})"
        log.warning("heartbeat: %s", outcome)
        return outcome
