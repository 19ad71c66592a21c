"""Everything on this machine: what `make run` starts, follows and ends."""

import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from coinwatch.errors import CoinwatchError, Interrupted, InvalidAction
from coinwatch.local import environment
from coinwatch.local.api import AirflowApi
from coinwatch.local.environment import BUCKET, HOST, SANDBOX_PORT, USER
from coinwatch.local.first_hour import FirstHour
from coinwatch.local.ports import check_ports
from coinwatch.local.processes import Processes, indent
from coinwatch.local.report import format_status
from coinwatch.rules import load_rules
from coinwatch.settings import Settings

if TYPE_CHECKING:
    from coinwatch.status import Status

PORT = 8080

_AIRFLOW = [sys.executable, "-m", "airflow"]
# The logs are in one folder, so nothing has to serve them over a port of its own.
_COMPONENTS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
}
_TRIGGERER = ["triggerer", "--skip-serve-logs"]
"""Starts after the first hour, which it would delay: no Dag of this project defers."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run is to do.

    Attributes:
        settings: The user's settings.
        home: Folder that has an AIRFLOW_HOME for the sandbox and one for the real services.
        live: Use the real services, not the sandbox.
        once: End when the first hour went through.
        limit: Seconds for the first hour, from the start of the processes to the report.
    """

    settings: Settings
    home: Path
    live: bool = False
    once: bool = False
    port: int = PORT
    sandbox_port: int = SANDBOX_PORT
    limit: float = 900.0


def sandbox_settings(settings: Settings) -> Settings:
    """Return the settings of a run that uses the sandbox: a folder and a bucket of its own."""
    places = ("bitcoin_raw_path", "bitcoin_processed_path", "bitcoin_archive_path")
    own = {"data_dir": settings.data_dir / "sandbox", "s3_bucket": BUCKET, "s3_prefix": ""}
    return settings.model_copy(update=own | dict.fromkeys(places))


def run(options: RunOptions, environ: Mapping[str, str], say: Callable[[str], None]) -> int:
    """Start everything, take the first hour through, and stay until a signal comes.

    When this returns or raises, nothing that it started is running any more.

    Args:
        options: What the run is to do.
        environ: The user's environment.
        say: Prints a line.

    Returns:
        Exit status: 0 if the first hour went through.

    Raises:
        InvalidAction: A setting, port or folder is wrong; nothing was started.
        CoinwatchError: Something did not start or ended, or `once` is set and the first hour did not go through.
        Interrupted: A signal came before the first hour was through.
    """
    settings = options.settings if options.live else sandbox_settings(options.settings)
    home = options.home / ("live" if options.live else "sandbox")
    load_rules(settings.config)
    for folder in (home, settings.data_dir):
        _check_writable(folder)
    with _only_one(home):
        ports = {"Airflow's page": options.port}
        if not options.live:
            sandbox = (f"the sandbox's {service}" for service in ("CoinGecko", "Slack", "S3"))
            ports |= {purpose: options.sandbox_port + offset for offset, purpose in enumerate(sandbox)}
        check_ports(ports)
        variables = environment.airflow_variables(home, options.port, environ)
        if not options.live:
            variables |= environment.sandbox_variables(settings.data_dir, options.sandbox_port)
        environment.write_env_file(home, variables, live=options.live)
        what = "with the real services" if options.live else "in the sandbox: ALL PRICES ARE SIMULATED"
        say(f"Coinwatch {what}. Data goes to {settings.data_dir}")
        try:
            with Processes(environment.inherited(environ, live=options.live) | variables, home / "logs") as processes:
                return _Run(options, settings, home, processes, say).run()
        finally:
            say("every process that was started has ended")


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


@dataclass(slots=True)
class _Run:
    """A run, from the start of its processes on."""

    options: RunOptions
    settings: Settings
    home: Path
    processes: Processes
    print_line: Callable[[str], None]

    def run(self) -> int:
        began = time.monotonic()
        end = began + self.options.limit

        def say(text: str) -> None:
            self.print_line(f"{time.monotonic() - began:5.0f} s  {text}")

        def pause(what: str) -> None:
            if time.monotonic() > end:
                raise CoinwatchError(
                    f"gave up after {self.options.limit / 60:.0f} minutes of waiting for {what}. The logs are in "
                    f"{self.home / 'logs'}; --limit sets a longer time for a slow machine"
                )
            self.processes.wait(1)

        password = environment.keep_password(self.home)
        self._start(say)
        api = AirflowApi(f"http://{HOST}:{self.options.port}", pause)
        first_hour = FirstHour(api, password, self.home / "logs", pause, say, self._read_status)
        status = 0
        try:
            result = first_hour.take_through()
            say("the first hour went all the way through")
            self.print_line("\n" + indent(format_status(result, self.settings)))
        except Interrupted:
            raise
        except CoinwatchError as error:
            # Airflow stays up, so that the user can see what went wrong, unless a process ended.
            self.processes.wait(0)
            if self.options.once:
                raise
            status = error.exit_status
            say(f"the first hour did not go through: {error}")
        return status if self.options.once else self._stay(password, status)

    def _start(self, say: Callable[[str], None]) -> None:
        if not self.options.live:
            ports = dict(zip(("coingecko", "slack", "s3"), range(self.options.sandbox_port, 65536), strict=False))
            arguments = [f"--{service}-port={port}" for service, port in ports.items()]
            folder = f"--data-dir={self.settings.data_dir}"
            command = [sys.executable, "-m", "coinwatch.cli", "sandbox", folder, f"--bucket={BUCKET}", *arguments]
            self.processes.start("sandbox", command)
        say("preparing Airflow's database")
        self.processes.run("db-migrate", [*_AIRFLOW, "db", "migrate"])
        say("starting Airflow")
        for name, arguments in _COMPONENTS.items():
            self.processes.start(name, [*_AIRFLOW, *arguments])

    def _read_status(self, as_of: datetime) -> "Status":
        # In a process of its own, because it needs Airflow's connections.
        from coinwatch.status import Status

        output = self.home / "logs" / "status.json"
        command = [sys.executable, "-m", "coinwatch.cli", "status", "--json", f"--as-of={as_of.isoformat()}"]
        self.processes.run("status", command, output)
        return Status.model_validate_json(output.read_bytes())

    def _stay(self, password: str, status: int) -> int:
        self.processes.start("triggerer", [*_AIRFLOW, *_TRIGGERER])
        lines = [f"Airflow   http://localhost:{self.options.port}  user {USER}, password {password}"]
        if not self.options.live:
            lines.append(f"Sandbox   http://{HOST}:{self.options.sandbox_port}/")
        lines += [f"Logs      {self.home / 'logs'}", f"Shell     set -a; . {self.home / 'env'}; set +a"]
        self.print_line(indent("\n".join(lines)) + "\nCtrl-C ends everything.")
        try:
            while True:
                self.processes.wait(1)
        except Interrupted:
            self.print_line("ending …")
            return status
