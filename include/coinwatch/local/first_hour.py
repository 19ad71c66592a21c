"""The first hour: trigger it, follow it through its Dags, and read the result."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coinwatch.errors import CoinwatchError
from coinwatch.local.api import AirflowApi
from coinwatch.local.environment import POOL
from coinwatch.local.processes import indent
from coinwatch.local.task_log import read_task_log
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
    """What one hour needs to go all the way through.

    Attributes:
        api: Airflow's.
        password: Of its user ``admin``.
        logs: Folder of its logs.
        pause: Waits a moment for its argument; raises if a process ended, a signal came or it takes too long.
        say: Prints a line.
        read_status: Reads the status as of a time.
    """

    api: AirflowApi
    password: str
    logs: Path
    pause: Callable[[str], None]
    say: Callable[[str], None]
    read_status: "Callable[[datetime], Status]"
    _said: set[tuple[object, ...]] = field(default_factory=set)

    def take_through(self) -> "Status":
        """Trigger `ingest_prices`, and wait until nothing that it started is left to do.

        Raises:
            CoinwatchError: A Dag file cannot be read, a task failed, a process ended, or it takes too long.
            Interrupted: A signal came.
        """
        self.api.log_in(self.password)
        self.api.add_pool(POOL)
        followed = self._switch_on()
        self.say("Airflow is up")
        run = self.api.trigger(INGEST)
        self.say(f"{INGEST} is triggered")
        return self._follow(followed, parse_time(run["run_after"]))

    def _switch_on(self) -> list[str]:
        """Wait for the Dags, and unpause those to follow; return them."""
        while True:
            errors = self.api.import_errors()
            if errors:
                texts = [f"{file}:\n{indent(trace)}" for file, trace in errors.items()]
                raise CoinwatchError("Airflow cannot read these Dag files:\n" + "\n".join(texts))
            paused = self.api.dags()
            if {INGEST, PROCESS} <= paused.keys():
                break
            self.pause(f"the Dags {INGEST} and {PROCESS}")
        followed = [dag_id for dag_id in FOLLOWED if dag_id in paused]
        for dag_id in followed:
            if paused[dag_id]:
                self.api.unpause(dag_id)
                self.say(f"{dag_id} was paused; it is on now")
        return followed

    def _follow(self, followed: list[str], since: datetime) -> "Status":
        as_of = since.replace(microsecond=0)
        idle_since: float | None = None
        left: list[str] = []
        while True:
            self.pause("; ".join([f"{', '.join(followed)} to end", *left]))
            if self._look(followed, since):
                idle_since = None
                continue
            status = self.read_status(as_of)
            left = status.left
            if not left:
                _expect_prices(status, as_of)
                return status
            idle_since = idle_since or time.monotonic()
            if time.monotonic() - idle_since > OVERDUE:
                self.say(f"{PROCESS} is triggered, because work is left: {'; '.join(left)}")
                self.api.trigger(PROCESS)
                idle_since = None

    def _look(self, followed: list[str], since: datetime) -> bool:
        """Print what happened since the last look; return whether a run is still going on.

        Runs that the clock or an earlier start began count too.
        """
        runs = [run for dag_id in followed for run in reversed(self.api.latest_runs(dag_id))]
        for run in runs:
            if run["end_date"] is None or parse_time(run["end_date"]) >= since:
                self._look_at_run(run)
        return any(run["state"] in ("queued", "running") for run in runs)

    def _look_at_run(self, run: dict[str, Any]) -> None:
        if (run["dag_id"], run["dag_run_id"]) in self._said:
            return
        tasks = self.api.tasks(run["dag_id"], run["dag_run_id"])
        for task in sorted(tasks, key=lambda task: task["end_date"] or ""):
            self._look_at_task(run, task)
        if run["state"] == "failed":
            raise CoinwatchError(self._why_failed(run, tasks))
        if run["state"] == "success":
            self._said.add((run["dag_id"], run["dag_run_id"]))

    def _look_at_task(self, run: dict[str, Any], task: dict[str, Any]) -> None:
        state = task["state"]
        key = (*(task[name] for name in ("dag_id", "dag_run_id", "task_id", "map_index", "try_number")), state)
        if key in self._said or state not in (*_ENDED, "up_for_retry"):
            return
        self._said.add(key)
        if state == "up_for_retry":
            self.say(f"{_name(run, task)}: try {task['try_number']} failed and is retried later. The reason:")
            self.say(indent(read_task_log(self._log(task))))
        else:
            seconds = f" ({task['duration']:.1f} s)" if state == "success" and task["duration"] is not None else ""
            self.say(f"{_name(run, task)} {_ENDED[state]}{seconds}")

    def _why_failed(self, run: dict[str, Any], tasks: list[dict[str, Any]]) -> str:
        lines = [f"the run {run['dag_run_id']} of {run['dag_id']} failed"]
        for task in tasks:
            if task["state"] == "failed":
                log = self._log(task)
                lines += [f"task {_name(run, task)}, try {task['try_number']}:", indent(read_task_log(log))]
                lines.append(f"  its whole log: {log}")
        return "\n".join(lines)

    def _log(self, task: dict[str, Any]) -> Path:
        folder = self.logs / f"dag_id={task['dag_id']}" / f"run_id={task['dag_run_id']}" / f"task_id={task['task_id']}"
        if task["map_index"] >= 0:
            folder /= f"map_index={task['map_index']}"
        return folder / f"attempt={task['try_number']}.log"


def _expect_prices(status: "Status", as_of: datetime) -> None:
    if status.without_price:
        raise CoinwatchError(
            f"every task succeeded, but the warehouse has no price of {', '.join(status.without_price)} as of "
            f"{format_time(as_of)}. Check COINWATCH_COINS; the log of fetch_prices says what CoinGecko answered"
        )


def _name(run: dict[str, Any], task: dict[str, Any]) -> str:
    """Return ``ingest_prices 05:00:00 fetch_history[0]``: Dag, as-of time and task."""
    as_of = parse_time(run["logical_date"] or run["run_after"])
    index = f"[{task['rendered_map_index'] or task['map_index']}]" if task["map_index"] >= 0 else ""
    return f"{task['dag_id']} {as_of:%H:%M:%S} {task['task_id']}{index}"
