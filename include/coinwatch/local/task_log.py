"""Why a task failed: the end of its log, which Airflow writes as JSON by line."""

import json
from pathlib import Path
from typing import Any

from coinwatch.local.processes import tail


def read_task_log(path: Path) -> str:
    """Return the last exception in the log of a task's try; without one, the last lines of the log."""
    entries = [_parse(line) for line in tail(path, 400).splitlines()]
    if not entries:
        return f"(there is no log {path})"
    # The first detail is the exception that was raised; those after it are its causes.
    errors = [entry["error_detail"][0] for entry in entries if entry.get("error_detail")]
    if errors:
        return f"{errors[-1]['exc_type']}: {errors[-1]['exc_value']}"
    return "\n".join(f"{entry.get('level', '')} {entry.get('event', '')}".strip() for entry in entries[-12:])


def _parse(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        entry = None
    # A library may print something else.
    return entry if isinstance(entry, dict) else {"event": line}
