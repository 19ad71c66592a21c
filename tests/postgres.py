"""A PostgreSQL server for the tests, from the binaries of this machine; it ends with the session."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

# The data need not survive a crash.
OPTIONS = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_connections=300 -c listen_addresses=''"


class PostgresServer:
    """A server in a folder of its own, which listens only on a socket there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names = count(1)

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


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server; tests that need it are skipped if its binaries are missing."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -int(path.parent.name))
    path = os.pathsep.join([*map(str, debian), os.environ["PATH"]])
    initdb = shutil.which("initdb", path=path)
    if initdb is None:
        pytest.skip("no PostgreSQL found: install the package postgresql, or put initdb and pg_ctl on the PATH")
    # The server refuses to run as root.
    user = "nobody" if os.geteuid() == 0 else None

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [Path(initdb).with_name(program), *arguments],
            cwd=folder,
            user=user,
            extra_groups=[] if user else None,
            # A pipe would be kept open by the server.
            stdout=subprocess.DEVNULL,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            check=True,
        )

    # Not in pytest's folder: other users may not enter it, and a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="coinwatch-pg-", ignore_cleanup_errors=True) as folder:
        if user:
            shutil.chown(folder, user)
        run("initdb", "--pgdata", "data", "--username", "tests", "--auth", "trust", "--encoding", "UTF8", "-N")
        run("pg_ctl", "start", "-w", "-D", "data", "-l", "log", "-o", f"{OPTIONS} -c unix_socket_directories={folder}")
        try:
            yield PostgresServer(Path(folder))
        finally:
            run("pg_ctl", "stop", "-w", "-D", "data", "-m", "immediate")


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
