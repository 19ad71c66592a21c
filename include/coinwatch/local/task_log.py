"""A task's log as Airflow writes it, JSON by the line: why the task failed, in words."""

import json
from pathlib import Path
from typing import Any

from coinwatch.local.processes import tail

_LINES = 400


def read_task_log(path: Path, lines: int = 12) -> str:
    """The end of a task's log, from the reason of its failure on where there is one.

    Args:
        path: The log of one try.
        lines: At most so many of them.

    Returns:
        Lines for people; says so if there is no log.
    """
    entries = [_entry(line) for line in tail(path, _LINES).splitlines()]
    if not entries:
        return f"(there is no log {path})"
    reasons = [reason for entry in entries if (reason := _reason(entry))]
    if reasons:
        return reasons[-1]
    return "\n".join(_plain(entry) for entry in entries[-lines:])


def _entry(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return {"event": line}
    return entry if isinstance(entry, dict) else {"event": line}


def _reason(entry: dict[str, Any]) -> str:
    """The exception that a line tells of, as ``Type: message``; empty without one."""
    details = entry.get("error_detail")
    if not isinstance(details, list) or not details:
        return ""
    # The first one is what was raised in the end; those after it are its causes.
    return f"{details[0].get('exc_type', 'an error')}: {details[0].get('exc_value', '')}"


def _plain(entry: dict[str, Any]) -> str:
    return f"{entry.get('level', '')} {entry.get('event', '')}".strip()
