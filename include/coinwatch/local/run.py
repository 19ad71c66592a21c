"""Everything on this machine: what `make run` starts, follows and ends."""

import fcntl
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from coinwatch.errors import CoinwatchError, Interrupted, InvalidAction
from coinwatch.local import environment
from coinwatch.local.api import AirflowApi
from coinwatch.local.environment import BUCKET, HOST, POOL, SANDBOX_PORT, USER
from coinwatch.local.first_hour import FirstHour
from coinwatch.local.ports import check_ports, read_port
from coinwatch.local.processes import Processes, indent
from coinwatch.local.report import format_status
from coinwatch.rules import load_rules
from coinwatch.settings import Settings

if TYPE_CHECKING:
    from coinwatch.status import Status

_AIRFLOW = [sys.executable, "-m", "airflow"]
_COINWATCH = [sys.executable, "-m", "coinwatch.cli"]
# The logs are in one folder, so nothing has to serve them over a port of its own.
_COMPONENTS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
}
_TRIGGERER = ["triggerer", "--skip-serve-logs"]
"""Starts after the first hour, which it would delay: no Dag of this project defers."""


def run(
    settings: Settings,
    homes: Path,
    environ: Mapping[str, str],
    print_line: Callable[[str], None],
    *,
    live: bool,
    once: bool,
    limit: float = 900.0,
) -> int:
    """Start everything, take the first hour through, and stay until a signal comes; return the exit status.

    When this returns or raises, nothing that it started is running any more.

    Args:
        settings: The user's settings.
        homes: Folder that has an AIRFLOW_HOME for the sandbox and one for the real services.
        environ: The user's environment.
        print_line: Prints a line.
        live: Use the real services, not the sandbox.
        once: End when the first hour went through.
        limit: Seconds for the first hour.
    """
    settings = settings if live else sandbox_settings(settings)
    home = homes / ("live" if live else "sandbox")
    port = read_port(environ, "COINWATCH_PORT", 8080)
    sandbox_port = None if live else read_port(environ, "COINWATCH_SANDBOX_PORT", SANDBOX_PORT)
    load_rules(settings.config)
    for folder in (home, settings.data_dir):
        _check_writable(folder)
    with _only_one(home):
        check_ports(port, sandbox_port)
        variables = environment.airflow_variables(home, port, environ)
        if sandbox_port:
            variables |= environment.sandbox_variables(settings.data_dir, sandbox_port)
        environment.write_env_file(home, variables, live=live)
        what = "with the real services" if live else "in the sandbox: ALL PRICES ARE SIMULATED"
        print_line(f"Coinwatch {what}. Data goes to {settings.data_dir}")
        try:
            with Processes(environment.inherited(environ, live=live) | variables, home / "logs") as processes:
                local = _Run(settings, home, environment.keep_password(home), port, sandbox_port, processes, print_line)
                status = local.take_first_hour_through(limit, once=once)
                return status if once else local.stay(status)
        finally:
            print_line("every process that was started has ended")


def sandbox_settings(settings: Settings) -> Settings:
    """Return the settings of a run that uses the sandbox: a folder and a bucket of its own."""
    places = ("bitcoin_raw_path", "bitcoin_processed_path", "bitcoin_archive_path")
    own = {"data_dir": settings.data_dir / "sandbox", "s3_bucket": BUCKET, "s3_prefix": ""}
    return settings.model_copy(update=own | dict.fromkeys(places))


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold a folder for this run alone; the kernel releases it after a crash."""
    with (folder / "run.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise InvalidAction(
                f"another run uses {folder} (process {lock.read().strip()}). End it first, by Ctrl-C or SIGTERM"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InvalidAction(f"the folder {folder} cannot be written to: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class _Run:
    """A run, from the start of its processes on."""

    settings: Settings
    home: Path
    password: str
    port: int
    sandbox_port: int | None
    processes: Processes
    print_line: Callable[[str], None]

    def take_first_hour_through(self, limit: float, *, once: bool) -> int:
        """Start everything and take the first hour through; return the exit status."""
        began = time.monotonic()

        def say(text: str) -> None:
            self.print_line(f"{time.monotonic() - began:5.0f} s  {text}")

        def pause(what: str) -> None:
            if time.monotonic() > began + limit:
                raise CoinwatchError(
                    f"no end after {limit / 60:.0f} minutes, waiting for {what}. The logs are in "
                    f"{self.home / 'logs'}; `coinwatch run --limit` sets a longer time for a slow machine"
                )
            self.processes.wait(1)

        self._start(say)
        api = AirflowApi(f"http://{HOST}:{self.port}", pause)
        try:
            api.log_in(self.password)
            status = FirstHour(api, self.home / "logs", pause, say, self._read_status).take_through()
        except CoinwatchError as error:
            if once or isinstance(error, Interrupted):
                raise
            # Airflow stays up, so that the user can see what went wrong, unless a process ended.
            self.processes.wait(0)
            say(f"the first hour did not go through: {error}")
            return error.exit_status
        say("the first hour went all the way through")
        self.print_line("\n" + indent(format_status(status, self.settings)))
        return 0

    def _start(self, say: Callable[[str], None]) -> None:
        if self.sandbox_port:
            options = [f"--data-dir={self.settings.data_dir}", f"--port={self.sandbox_port}"]
            self.processes.start("sandbox", [*_COINWATCH, "sandbox", *options])
        say("preparing Airflow's database")
        self.processes.run("db-migrate", [*_AIRFLOW, "db", "migrate"])
        # Not by a request: one that writes while a task starts can block Airflow's API until SQLite's timeout.
        with closing(sqlite3.connect(self.home / "airflow.db")) as database, database:
            database.execute(
                "INSERT OR IGNORE INTO slot_pool (pool, slots, description, include_deferred) VALUES (?, ?, ?, false)",
                [POOL["name"], POOL["slots"], POOL["description"]],
            )
        say("starting Airflow")
        for name, arguments in _COMPONENTS.items():
            self.processes.start(name, [*_AIRFLOW, *arguments])

    def _read_status(self, as_of: datetime) -> "Status":
        # In a process of its own, because it needs Airflow's connections.
        from coinwatch.status import Status

        output = self.home / "logs" / "status.json"
        self.processes.run("status", [*_COINWATCH, "status", "--json", f"--as-of={as_of.isoformat()}"], output)
        return Status.model_validate_json(output.read_bytes())

    def stay(self, status: int) -> int:
        """Print the addresses, and wait for a signal; return the status."""
        self.processes.start("triggerer", [*_AIRFLOW, *_TRIGGERER])
        lines = [f"Airflow   http://localhost:{self.port}  user {USER}, password {self.password}"]
        if self.sandbox_port:
            lines.append(f"Sandbox   http://{HOST}:{self.sandbox_port}/")
        lines += [f"Logs      {self.home / 'logs'}", f"Shell     set -a; . {self.home / 'env'}; set +a"]
        self.print_line(indent("\n".join(lines)) + "\nCtrl-C ends everything.")
        try:
            while True:
                self.processes.wait(1)
        except Interrupted:
            self.print_line("ending …")
            return status
