"""The first hour: triggered, followed through both Dags, and reported on."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from coinwatch.local.api import AirflowApi, NotAnswering
from coinwatch.local.errors import RunError
from coinwatch.local.home import AirflowHome
from coinwatch.local.processes import Processes, Signals, indent
from coinwatch.local.report import Report
from coinwatch.local.task_log import read_task_log
from coinwatch.times import format_time, parse_time

INGEST = "ingest_prices"
PROCESS = "process_prices"

_ENDED = {
    "success": "done",
    "failed": "FAILED",
    "skipped": "skipped",
    "upstream_failed": "not run: one before it failed",
}


@dataclass(slots=True)
class FirstHour:
    """What is needed to bring one hour all the way through.

    Attributes:
        api: Airflow's.
        home: Where its logs are.
        signals: What interrupts waiting.
        processes: Airflow's parts, which have to go on.
        say: Tells the person at the terminal.
        read_report: Reads the warehouse as of a time.
        since: When this start began: runs that had ended before are of no concern.
        limit: Seconds for everything.
        interval: Seconds between two looks at Airflow.
        overdue: Seconds after which `process_prices` is started by hand, if there is work left and nobody does it: the
            event for it came while it was busy, and was lost.
    """

    api: AirflowApi
    home: AirflowHome
    signals: Signals
    processes: Processes
    say: Callable[[str], None]
    read_report: Callable[[datetime], Report]
    since: datetime
    limit: float
    interval: float = 1.0
    overdue: float = 30.0
    _told: set[tuple[object, ...]] = field(default_factory=set)
    _end: float = 0.0

    def take_through(self) -> Report:
        """Wait for Airflow, trigger `ingest_prices`, and wait until everything that came of it is done.

        Returns:
            The report; nothing is left in it.

        Raises:
            RunError: A Dag cannot be read, a task failed, a part of Airflow ended, or it takes too long.
            Interrupted: A signal came.
        """
        self._end = time.monotonic() + self.limit
        self._until(self._is_healthy, "Airflow to be healthy")
        self.say("Airflow is up")
        self._ask(self.api.log_in)
        self._until(self._has_dags, f"the Dags {INGEST} and {PROCESS}")
        run = self._ask(lambda: self.api.trigger(INGEST))
        self.say(f"{INGEST} is triggered")
        return self._follow(parse_time(run["run_after"]).replace(microsecond=0))

    def _follow(self, as_of: datetime) -> Report:
        idle_since: float | None = None
        left: list[str] = []
        while True:
            self._pause(f"{INGEST} and {PROCESS} to end" + "".join(f"; {what}" for what in left))
            try:
                busy = self._look()
            except NotAnswering:
                continue
            if busy:
                idle_since = None
                continue
            report = self.read_report(as_of)
            left = report.left
            if not left:
                self._expect_prices(report)
                return report
            idle_since = idle_since or time.monotonic()
            if time.monotonic() - idle_since > self.overdue:
                self.say(f"{PROCESS} is started by hand, because there is work left: {'; '.join(left)}")
                self._ask(lambda: self.api.trigger(PROCESS))
                idle_since = None

    def _look(self) -> bool:
        """Tell what has happened since the last look.

        Airflow may have started a run for the full hour by itself; and what the last start left running goes on.

        Returns:
            Whether something is still going on.
        """
        runs = [run for dag_id in (INGEST, PROCESS) for run in reversed(self.api.latest_runs(dag_id))]
        for run in runs:
            if not _ended_before(run, self.since):
                self._look_at_run(run)
        return any(run["state"] in ("queued", "running") for run in runs)

    def _look_at_run(self, run: dict[str, Any]) -> None:
        if (run["dag_id"], run["dag_run_id"]) in self._told:
            return
        tasks = self.api.tasks(run["dag_id"], run["dag_run_id"])
        for task in sorted(tasks, key=lambda task: task["end_date"] or ""):
            self._look_at_task(run, task)
        if run["state"] == "failed":
            raise RunError(self._why_failed(run, tasks))
        if run["state"] == "success":
            self._told.add((run["dag_id"], run["dag_run_id"]))

    def _look_at_task(self, run: dict[str, Any], task: dict[str, Any]) -> None:
        state = task["state"]
        key = (*(task[name] for name in ("dag_id", "dag_run_id", "task_id", "map_index", "try_number")), state)
        if key in self._told or state not in (*_ENDED, "up_for_retry"):
            return
        self._told.add(key)
        if state == "up_for_retry":
            self.say(f"{_name(run, task)} failed at try {task['try_number']} and is tried again later. The reason:")
            self.say(indent(self._reason(task)))
        else:
            seconds = f" ({task['duration']:.1f} s)" if state == "success" and task["duration"] is not None else ""
            self.say(f"{_name(run, task)} {_ENDED[state]}{seconds}")

    def _why_failed(self, run: dict[str, Any], tasks: list[dict[str, Any]]) -> str:
        lines = [f"the run {run['dag_run_id']} of {run['dag_id']} failed"]
        for task in tasks:
            if task["state"] == "failed":
                lines += [f"task {_name(run, task)}, try {task['try_number']}:", indent(self._reason(task))]
                lines.append(f"  its whole log: {self._log(task)}")
        return "\n".join(lines)

    def _reason(self, task: dict[str, Any]) -> str:
        return read_task_log(self._log(task))

    def _log(self, task: dict[str, Any]) -> Any:
        return self.home.task_log(
            task["dag_id"], task["dag_run_id"], task["task_id"], task["map_index"], task["try_number"]
        )

    def _expect_prices(self, report: Report) -> None:
        if report.without_price:
            raise RunError(
                f"everything ran, but the warehouse has no price of {', '.join(report.without_price)} as of "
                f"{format_time(report.as_of)}. Check COINWATCH_COINS; the log of the "
                "task fetch_prices says what came"
            )

    def _is_healthy(self) -> bool:
        states = self.api.health()
        return all(state == "healthy" for state in states.values())

    def _has_dags(self) -> bool:
        errors = self.api.import_errors()
        if errors:
            texts = [f"{file}:\n{indent(trace)}" for file, trace in errors.items()]
            raise RunError("Airflow cannot read these Dag files:\n" + "\n".join(texts))
        dags = self.api.dags()
        if not dags.keys() >= {INGEST, PROCESS}:
            return False
        for dag_id in (INGEST, PROCESS):
            if dags[dag_id]:
                self.api.switch_on(dag_id)
                self.say(f"{dag_id} was paused, and is switched on")
        return True

    def _until(self, done: Callable[[], bool], what: str) -> None:
        while not self._ask(done):
            self._pause(what)

    def _ask(self, question: Callable[[], Any]) -> Any:
        """Ask until there is an answer."""
        while True:
            try:
                return question()
            except NotAnswering as error:
                self._pause(f"Airflow to answer ({error})")

    def _pause(self, what: str) -> None:
        self.processes.check()
        if time.monotonic() > self._end:
            raise RunError(
                f"gave up after {self.limit / 60:.0f} minutes of waiting for {what}. The logs are in "
                f"{self.home.folder / 'logs'}; on a slow machine, a longer time can be given with --limit"
            )
        self.signals.wait(self.interval)


def _ended_before(run: dict[str, Any], moment: datetime) -> bool:
    return run["end_date"] is not None and parse_time(run["end_date"]) < moment


def _name(run: dict[str, Any], task: dict[str, Any]) -> str:
    """``ingest_prices 05:00:00 fetch_history[bitcoin]``: Dag, as-of time and task."""
    as_of = parse_time(run["logical_date"] or run["run_after"])
    index = f"[{task['rendered_map_index'] or task['map_index']}]" if task["map_index"] >= 0 else ""
    return f"{task['dag_id']} {as_of:%H:%M:%S} {task['task_id']}{index}"
