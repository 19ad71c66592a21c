"""The heartbeat: a file, and a call to an outside monitor that notices when the calls stop."""

import json
import logging
import urllib.request
from http.client import HTTPException
from typing import TYPE_CHECKING

from coinwatch import status
from coinwatch.files import replace_file
from coinwatch.health import issues
from coinwatch.health.checks import UNDELIVERED_AFTER
from coinwatch.times import format_time

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

_CALL_TIMEOUT = 10


def write_heartbeat(app: "App") -> str:
    """Write `heartbeat.json`, call the URL of the settings, and return what was done.

    The URL is not called while an open issue waits for its notification: then the monitor notifies operators.
    """
    now = app.clock()
    with app.warehouse.begin() as connection:
        found = issues.open_issues(connection)
        unnotified = [
            row
            for row in issues.due(connection, now)
            if row.state == "open" and row.notified_state != "open" and now - row.notify_after >= UNDELIVERED_AFTER
        ]
        newest = status.newest_prices(connection, app.settings)
        undelivered = status.undelivered(connection)
    content = {
        "at": format_time(now),
        "ok": not found,
        "issues": [
            {"key": row.key, "title": row.title, "detail": row.detail, "since": format_time(row.opened_at)}
            for row in found
        ],
        "unnotified_issues": len(unnotified),
        "undelivered_alerts": undelivered.pending + undelivered.not_configured,
        "newest_price": {coin: format_time(newest[coin]) if coin in newest else None for coin in app.settings.coins},
    }
    path = app.settings.data_dir / "heartbeat.json"
    replace_file(path, json.dumps(content, indent=2).encode() + b"\n")
    url = app.settings.heartbeat_url.get_secret_value()
    if not url:
        return f"{path} written"
    if unnotified:
        log.error("heartbeat URL not called: operators are not notified of %d open issues", len(unnotified))
        return f"{path} written, URL not called"
    return f"{path} written, {_call(url)}"


def _call(url: str) -> str:
    """Call a URL and return the outcome; neither it nor the log contains the URL, which is a secret."""
    try:
        # Not with requests: urllib3 logs the path.
        with urllib.request.urlopen(url, timeout=_CALL_TIMEOUT) as answer:  # noqa: S310 - the settings allow http and https only
            return f"URL called (HTTP {answer.status})"
    except (OSError, HTTPException, ValueError) as error:
        # Its text may contain the URL. The monitor notices the missing call.
        code = getattr(error, "code", None)
        outcome = f"URL call failed ({type(error).__name__}{f' {code}' if code else ''})"
        log.warning("heartbeat: %s", outcome)
        return outcome
