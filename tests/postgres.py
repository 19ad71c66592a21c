"""A real PostgreSQL server for the tests, from the binaries of this machine; gone with the session."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

NOT_HERE = (
    "there is no PostgreSQL on this machine: install the package postgresql, or put initdb and pg_ctl on the PATH"
)

# The data is not worth a disk's time.
OPTIONS = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=300 -c listen_addresses=''"


def find_binaries() -> Path | None:
    """The folder of initdb, pg_ctl and postgres: the newest of Debian's, or that of the PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    for folder in folders:
        if all((folder / name).exists() for name in ("initdb", "pg_ctl", "postgres")):
            return folder
    return None


class PostgresServer:
    """A server in a folder of its own, which listens on a socket there and nowhere else."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.folder = folder
        self._binaries = binaries
        self._names = count(1)
        # The server refuses to run as root.
        self._user = _somebody_else() if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(folder, self._user)

    def start(self) -> None:
        self._run("initdb", "--pgdata", "data", "--username", "tests", "--auth", "trust", "--encoding", "UTF8", "-N")
        options = f"{OPTIONS} -c unix_socket_directories={self.folder}"
        self._run("pg_ctl", "start", "-w", "-D", "data", "-l", "log", "-o", options)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-w", "-D", "data", "-m", "immediate")

    def _run(self, program: str, *arguments: str) -> None:
        with (self.folder / "output").open("w+b") as output:
            done = subprocess.run(
                [self._binaries / program, *arguments],
                cwd=self.folder,
                user=self._user,
                extra_groups=[] if self._user else None,
                # No pipe: the server would hold it open.
                stdout=output,
                stderr=output,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
                check=False,
            )
            if done.returncode:
                output.seek(0)
                log = self.folder / "log"
                server = log.read_text() if log.exists() else ""
                raise RuntimeError(f"{program} failed: {output.read().decode()}{server}")

    def url(self, database: str, user: str = "tests") -> str:
        # The driver that Airflow's PostgreSQL hook chooses.
        return f"postgresql+psycopg://{user}@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """Make an empty database; its URL."""
        name = f"test_{next(self._names)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str) -> None:
        """Run a statement outside of any transaction."""
        import psycopg

        with psycopg.connect(host=str(self.folder), user="tests", dbname="postgres", autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[arg-type]  # our own text


def _somebody_else() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server; a test that needs it is skipped where there is none."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip(NOT_HERE)
    # Not below pytest's own folder: nobody else may enter that, and a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="coinwatch-pg-", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(binaries, Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def new_warehouse_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """The URL of a new warehouse by a name: each test runs on SQLite and on PostgreSQL."""
    urls: dict[str, str] = {}

    def new(name: str) -> str:
        if name not in urls:
            if request.param == "sqlite":
                urls[name] = f"sqlite:///{tmp_path / name / 'warehouse.db'}"
            else:
                urls[name] = request.getfixturevalue("postgres").new_database()
        return urls[name]

    return new
