"""The first hour: trigger it, follow it through its Dags, and read the result."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coinwatch.errors import CoinwatchError
from coinwatch.local.api import AirflowApi
from coinwatch.local.processes import indent, tail
from coinwatch.times import format_time, parse_time

if TYPE_CHECKING:
    from coinwatch.status import Status

INGEST = "ingest_prices"
PROCESS = "process_prices"
FOLLOWED = (INGEST, "heal_history", PROCESS)

OVERDUE = 30.0
"""Seconds after which `process_prices` is triggered if work is left: an asset event that comes while the Dag is busy
can stay without a run (apache/airflow#56050)."""

_ENDED = {
    "success": "done",
    "failed": "FAILED",
    "skipped": "skipped",
    "upstream_failed": "not run: a task before it failed",
}


@dataclass(slots=True)
class FirstHour:
    """One hour on its way through the Dags.

    Attributes:
        api: Airflow's; `admin` is logged in.
        logs: Folder of Airflow's logs.
        pause: Waits a moment for its argument; raises if a process ended, a signal came or it takes too long.
        say: Prints a line.
        read_status: Reads the status as of a time.
    """

    api: AirflowApi
    logs: Path
    pause: Callable[[str], None]
    say: Callable[[str], None]
    read_status: "Callable[[datetime], Status]"
    _said: set[tuple[object, ...]] = field(default_factory=set)
    _is_behind: bool = False

    def take_through(self) -> "Status":
        """Trigger `ingest_prices`, and wait until every run has ended and no work is left."""
        self._wait_for_dags()
        self.say("Airflow is up")
        since = parse_time(self.api.trigger(INGEST)["run_after"])
        self.say(f"{INGEST} is triggered")
        as_of = since.replace(microsecond=0)
        idle_since: float | None = None
        left: list[str] = []
        while True:
            self.pause("; ".join(left) or f"{', '.join(FOLLOWED)} to end")
            if self._look(since):
                idle_since = None
                continue
            status = self.read_status(as_of)
            left = status.left
            if not left or (self._is_behind and not status.without_price):
                break
            idle_since = idle_since or time.monotonic()
            if time.monotonic() - idle_since > OVERDUE:
                self.say(f"{PROCESS} is triggered, because work is left: {'; '.join(left)}")
                self.api.trigger(PROCESS)
                idle_since = None
        if status.without_price:
            raise CoinwatchError(
                f"every task succeeded, but the warehouse has no price of {', '.join(status.without_price)} as of "
                f"{format_time(as_of)}. Check COINWATCH_COINS; the log of fetch_prices has CoinGecko's answer"
            )
        return status

    def _wait_for_dags(self) -> None:
        """Wait until Airflow has read the Dags, and unpause those to follow."""
        while True:
            if errors := self.api.import_errors():
                texts = [f"{file}:\n{indent(trace)}" for file, trace in errors.items()]
                raise CoinwatchError("Airflow cannot import these Dag files:\n" + "\n".join(texts))
            dags = self.api.dags()
            if dags.keys() >= set(FOLLOWED):
                break
            self.pause(f"the Dags {', '.join(FOLLOWED)}")
        for dag_id in FOLLOWED:
            if dags[dag_id]:
                self.api.unpause(dag_id)

    def _look(self, since: datetime) -> bool:
        """Print what happened since the last look; return whether a run is queued or running.

        Runs of the schedule, and those of an earlier start, count too; a `heal_history` of several chunks does not.
        """
        runs = [run for dag_id in FOLLOWED for run in reversed(self.api.latest_runs(dag_id))]
        behind: set[tuple[object, ...]] = set()
        for run in runs:
            key = run["dag_id"], run["dag_run_id"]
            if key in self._said or (run["end_date"] and parse_time(run["end_date"]) < since):
                continue
            tasks = self.api.tasks(*key)
            for task in sorted(tasks, key=lambda task: task["end_date"] or ""):
                self._look_at_task(run, task)
            if run["state"] == "failed":
                raise CoinwatchError(self._why_failed(run, tasks))
            if run["state"] == "success":
                self._said.add(key)
            elif run["state"] == "running" and any(task["map_index"] > 0 for task in tasks):
                behind.add(key)
        if behind and not self._is_behind:
            self._is_behind = True
            self.say("heal_history has many hours to fetch: they come in behind the live ones")
        waited_for = [run for run in runs if (run["dag_id"], run["dag_run_id"]) not in behind]
        return any(run["state"] in ("queued", "running") for run in waited_for)

    def _look_at_task(self, run: dict[str, Any], task: dict[str, Any]) -> None:
        state = task["state"]
        key = (*(task[name] for name in ("dag_id", "dag_run_id", "task_id", "map_index", "try_number")), state)
        if key in self._said or state not in (*_ENDED, "up_for_retry"):
            return
        self._said.add(key)
        if state == "up_for_retry":
            self.say(f"{_name(run, task)}: try {task['try_number']} failed, to be retried:")
            self.say(indent(failure_in_log(self._log(task))))
        else:
            seconds = f" ({task['duration']:.1f} s)" if state == "success" and task["duration"] is not None else ""
            self.say(f"{_name(run, task)} {_ENDED[state]}{seconds}")

    def _why_failed(self, run: dict[str, Any], tasks: list[dict[str, Any]]) -> str:
        lines = [f"the run {run['dag_run_id']} of {run['dag_id']} failed"]
        for task in tasks:
            if task["state"] == "failed":
                log = self._log(task)
                lines += [f"task {_name(run, task)}, try {task['try_number']}:", indent(failure_in_log(log))]
                lines.append(f"  its log: {log}")
        return "\n".join(lines)

    def _log(self, task: dict[str, Any]) -> Path:
        folder = self.logs / f"dag_id={task['dag_id']}" / f"run_id={task['dag_run_id']}" / f"task_id={task['task_id']}"
        if task["map_index"] >= 0:
            folder /= f"map_index={task['map_index']}"
        return folder / f"attempt={task['try_number']}.log"


def _name(run: dict[str, Any], task: dict[str, Any]) -> str:
    """Return ``ingest_prices 05:00:00 fetch_history[0]``: Dag, as-of time and task."""
    as_of = parse_time(run["logical_date"] or run["run_after"])
    index = f"[{task['rendered_map_index'] or task['map_index']}]" if task["map_index"] >= 0 else ""
    return f"{task['dag_id']} {as_of:%H:%M:%S} {task['task_id']}{index}"


def failure_in_log(path: Path) -> str:
    """Return the last exception in a task's log, which is JSON by line; without one, the last lines."""
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
