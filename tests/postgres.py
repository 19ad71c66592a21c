"""A PostgreSQL server for the tests, from the binaries of this machine; it ends with the session."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

MISSING = "no PostgreSQL found: install the package postgresql, or put initdb and pg_ctl on the PATH"

# The data need not survive a crash.
OPTIONS = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=300 -c listen_addresses=''"


def find_binaries() -> Path | None:
    """Return the folder of initdb, pg_ctl and postgres: the newest of Debian's, or the one on the PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    on_path = shutil.which("initdb")
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    for folder in folders:
        if all((folder / name).exists() for name in ("initdb", "pg_ctl", "postgres")):
            return folder
    return None


class PostgresServer:
    """A server in a folder of its own, which listens only on a socket there."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.folder = folder
        self._binaries = binaries
        self._names = count(1)
        # The server refuses to run as root.
        self._user = _other_user() if os.geteuid() == 0 else None
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
                # Not a pipe: the server would keep it open.
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
        """Create an empty database and return its URL."""
        name = f"test_{next(self._names)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str) -> None:
        """Run a statement outside of any transaction."""
        import psycopg

        with psycopg.connect(host=str(self.folder), user="tests", dbname="postgres", autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[arg-type]  # our own text


def _other_user() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server; tests that need it are skipped if its binaries are missing."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip(MISSING)
    # Not in pytest's folder: other users may not enter it, and a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="coinwatch-pg-", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(binaries, Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "postgres: the test's warehouse is on SQLite and, once more, on PostgreSQL")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "new_warehouse_url" in metafunc.fixturenames and metafunc.definition.get_closest_marker("postgres"):
        metafunc.parametrize("new_warehouse_url", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
def new_warehouse_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Return the URL of a new warehouse by a name: on SQLite, unless the test has the marker ``postgres``."""
    urls: dict[str, str] = {}

    def new(name: str) -> str:
        if name not in urls:
            if getattr(request, "param", "sqlite") == "sqlite":
                urls[name] = f"sqlite:///{tmp_path / name / 'warehouse.db'}"
            else:
                urls[name] = request.getfixturevalue("postgres").new_database()
        return urls[name]

    return new
