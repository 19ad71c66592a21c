"""The whole of Coinwatch on this machine: `coinwatch run`."""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from coinwatch.local.airflow_settings import connections_at_other_ports, read_airflow_settings
from coinwatch.local.api import AirflowApi
from coinwatch.local.environment import airflow_environment, sandbox_environment
from coinwatch.local.errors import Interrupted, RunError, WrongInput
from coinwatch.local.first_hour import FirstHour
from coinwatch.local.home import USER, AirflowHome
from coinwatch.local.ports import HOST, Port, check_ports
from coinwatch.local.processes import Processes, Signals, indent, only_one
from coinwatch.local.report import Report, format_report
from coinwatch.rules import load_rules
from coinwatch.settings import Settings

PORT = 8080
SANDBOX_PORT = 8481
BUCKET = "coinwatch-sandbox"

LIMIT = 15 * 60.0
"""Seconds for the first hour, from the start of Airflow's parts to the report."""

_COMPONENTS = {
    "api-server": ["api-server"],
    # The logs lie in one folder, so nobody has to serve them over a port of his own.
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run is to be.

    Attributes:
        project: Folder that holds dags/, plugins/ and airflow_settings.yaml.
        home: Folder for AIRFLOW_HOME; the sandbox and the real services have one each in it.
        settings: What the environment decides.
        environ: The user's environment.
        clock: Tells the time.
        live: With the real services, not the sandbox's.
        once: End when the first hour went through.
        port: Of Airflow's page.
        sandbox_port: Of the sandbox's CoinGecko; Slack and S3 have the two after it.
        limit: Seconds for the first hour.
    """

    project: Path
    home: Path
    settings: Settings
    environ: Mapping[str, str]
    clock: Callable[[], datetime]
    live: bool = False
    once: bool = False
    port: int = PORT
    sandbox_port: int = SANDBOX_PORT
    limit: float = LIMIT

    @property
    def airflow_home(self) -> Path:
        """AIRFLOW_HOME: what is simulated and what is real never share one."""
        return self.home / ("live" if self.live else "sandbox")

    def ports(self) -> list[Port]:
        """All that have to be free."""
        choose = "Choose another one with COINWATCH_PORT, for example COINWATCH_PORT=8090 make run"
        ports = [Port(self.port, "Airflow's page", choose)]
        if not self.live:
            other = self.sandbox_port + 100 if self.sandbox_port < 65000 else SANDBOX_PORT
            choose = f"Choose three others with COINWATCH_SANDBOX_PORT={other} (the first of them)"
            for offset, name in enumerate(("CoinGecko", "Slack", "S3")):
                ports.append(Port(self.sandbox_port + offset, f"the sandbox's {name}", choose))
        return ports


def sandbox_settings(settings: Settings) -> Settings:
    """The settings as they hold in the sandbox: other folders, another bucket."""
    return settings.model_copy(
        update={
            "data_dir": settings.data_dir / "sandbox",
            "bitcoin_raw_path": None,
            "bitcoin_processed_path": None,
            "bitcoin_archive_path": None,
            "s3_bucket": BUCKET,
            "s3_prefix": "",
        }
    )


def run(options: RunOptions, say: Callable[[str], None]) -> int:
    """Start everything, take the first hour through, and stay until somebody ends it.

    Nothing that was started is there any more when this returns, or raises.

    Args:
        options: What the run is to be.
        say: Tells the person at the terminal.

    Returns:
        Exit status: 0 if the first hour went through.

    Raises:
        WrongInput: Something was asked for that cannot be; nothing was started.
        RunError: It could not be started, or a part of it ended.
        Interrupted: It was ended before the first hour was through.
    """
    return _Run(options, say).run()


class _Run:
    def __init__(self, options: RunOptions, say: Callable[[str], None]) -> None:
        self.options = options
        self._screen = say
        self.settings = options.settings if options.live else sandbox_settings(options.settings)
        self.home = AirflowHome(options.airflow_home, options.project, options.port)
        self.began = time.monotonic()

    def run(self) -> int:
        load_rules(self.settings.config)
        entries = self.options.project / "airflow_settings.yaml"
        moved = connections_at_other_ports(
            read_airflow_settings(entries),
            {SANDBOX_PORT + offset: self.options.sandbox_port + offset for offset in range(3)},
        )
        for folder in (self.home.folder, self.settings.data_dir):
            _check_writable(folder)
        with only_one(self.home.folder), Signals() as signals:
            check_ports(self.options.ports())
            sandbox = None if self.options.live else self._sandbox_values() | moved
            self.home.prepare(sandbox)
            self._say_what()
            try:
                with Processes(signals) as processes:
                    return self._with_processes(processes, signals, self._environment(sandbox), entries)
            finally:
                self._screen("everything that was started has ended")

    def _sandbox_values(self) -> dict[str, str]:
        return {
            "COINWATCH_DATA_DIR": str(self.settings.data_dir),
            "COINWATCH_S3_BUCKET": self.settings.s3_bucket,
        }

    def _environment(self, sandbox: Mapping[str, str] | None) -> dict[str, str]:
        environ = self.options.environ if sandbox is None else sandbox_environment(self.options.environ, sandbox)
        return airflow_environment(environ, str(self.home.folder))

    def _with_processes(self, processes: Processes, signals: Signals, environ: Mapping[str, str], entries: Path) -> int:
        began = self.options.clock()
        self._start(processes, environ, entries)
        first_hour = FirstHour(
            api=AirflowApi(f"http://{HOST}:{self.options.port}", self.home.password),
            home=self.home,
            signals=signals,
            processes=processes,
            say=self.say,
            read_report=lambda as_of: self._read_report(processes, environ, as_of),
            since=began,
            limit=self.options.limit,
        )
        status = 0
        try:
            self._say_report(first_hour.take_through())
        except Interrupted:
            raise
        except RunError as error:
            # Airflow goes on, so that one can look at what went wrong, unless a part of it is gone.
            processes.check()
            if self.options.once:
                raise
            status = error.status
            self.say(f"The first hour did not go through: {error}")
        if self.options.once:
            return status
        self._say_where()
        self._screen("Ctrl-C ends everything.")
        return self._stay(processes, signals, status)

    def _start(self, processes: Processes, environ: Mapping[str, str], entries: Path) -> None:
        if not self.options.live:
            processes.start("sandbox", self._sandbox_command(), environ, self.home.log("sandbox"))
        self.say("preparing Airflow's database")
        python = [sys.executable, "-m"]
        processes.run("airflow db migrate", [*python, "airflow", "db", "migrate"], environ, self.home.log("migrate"))
        load = [*python, "coinwatch.cli", "load-airflow-settings", str(entries)]
        if self.options.live:
            load.append("--without-connections")
        processes.run("coinwatch load-airflow-settings", load, environ, self.home.log("settings"))
        self.say("starting Airflow")
        for name, arguments in _COMPONENTS.items():
            processes.start(name, [*python, "airflow", *arguments], environ, self.home.log(name))

    def _sandbox_command(self) -> list[str | Path]:
        command: list[str | Path] = [sys.executable, "-m", "coinwatch.sandbox.server"]
        command += ["--data-dir", self.settings.data_dir, "--bucket", BUCKET]
        for offset, name in enumerate(("coingecko", "slack", "s3")):
            command += [f"--{name}-port", str(self.options.sandbox_port + offset)]
        return command

    def _read_report(self, processes: Processes, environ: Mapping[str, str], as_of: datetime) -> Report:
        output = self.home.folder / "report.json"
        command = [
            sys.executable,
            "-m",
            "coinwatch.local.report",
            "--as-of",
            as_of.isoformat(),
            "--output",
            str(output),
        ]
        # So that it may see connections that were made in the UI, such as the warehouse's.
        environ = {**environ, "_AIRFLOW_PROCESS_CONTEXT": "server"}
        processes.run("reading the warehouse", command, environ, self.home.log("report"))
        return Report.model_validate_json(output.read_bytes())

    def _stay(self, processes: Processes, signals: Signals, status: int) -> int:
        while True:
            try:
                signals.wait(1)
            except Interrupted:
                self._screen("ending …")
                return status
            processes.check()

    def say(self, text: str) -> None:
        """Tell something, with the seconds since the start before it."""
        self._screen(f"{time.monotonic() - self.began:5.0f} s  {text}")

    def _say_what(self) -> None:
        if self.options.live:
            self._screen("Coinwatch with the real services. Data goes to " + str(self.settings.data_dir))
        else:
            self._screen(
                "Coinwatch in the sandbox: ALL PRICES ARE SIMULATED. Data goes to " + str(self.settings.data_dir)
            )

    def _say_report(self, report: Report) -> None:
        self.say("the first hour went all the way through")
        self._screen("")
        self._screen(indent(format_report(report, self.settings)))
        if not self.options.live:
            self._screen(indent(f"{'Prices':<10}SIMULATED: nothing of this is real, and nothing left this machine"))

    def _say_where(self) -> None:
        lines = [f"{'Airflow':<10}{self.home.url}  user {USER}, password {self.home.password}"]
        if not self.options.live:
            lines.append(f"{'Slack':<10}http://{HOST}:{self.options.sandbox_port + 1}/  (the sandbox's)")
        lines.append(f"{'Logs':<10}{self.home.folder / 'logs'}")
        self._screen(indent("\n".join(lines)))


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise WrongInput(f"the folder {folder} cannot be written to: {error.strerror}") from None
