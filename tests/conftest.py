"""What all tests share: an environment of their own, folders, the warehouse, and staged crashes."""

import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sqlalchemy import Engine

pytest_plugins = ["postgres", "world"]

PROJECT = Path(__file__).resolve().parents[1]
CODE = str(PROJECT / "include" / "coinwatch")


def _isolate_environment() -> Path:
    """Nothing of the user's environment may reach a test; Airflow reads its configuration when it is imported."""
    for name in list(os.environ):
        if name.startswith(("AIRFLOW", "COINWATCH_", "BITCOIN_", "AWS_")):
            del os.environ[name]
    home = Path(tempfile.mkdtemp(prefix="coinwatch-tests-"))
    os.environ |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__DAG_PROCESSOR__DAG_VERSION_INFLATION_CHECK_LEVEL": "error",
        "AWS_EC2_METADATA_DISABLED": "true",
        "COINWATCH_DATA_DIR": str(home / "data"),
        "MPLCONFIGDIR": str(home / "matplotlib"),
    }
    return home


_HOME = _isolate_environment()

# No test cuts the power: what a killed process has written is there without waiting for the disk.
os.fsync = lambda _: None


def pytest_unconfigure() -> None:
    shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def _environment_is_restored() -> Iterator[None]:
    """Undo what commands set: they configure Airflow by the environment of their process."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def airflow_database() -> Path:
    """Airflow's own database, once for all tests that need it; and a copy of it that has not been used yet."""
    import subprocess

    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
    # Not as a file: while this process has the database open, what was written last may stand in its WAL alone.
    with (
        closing(sqlite3.connect(_HOME / "airflow.db")) as database,
        closing(sqlite3.connect(_HOME / "unused.db")) as copy,
    ):
        database.backup(copy)
    return _HOME / "unused.db"


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The recorded real prices; they lie beside the project, and not everybody has them."""
    folder = PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the recorded prices are not there: {folder}")
    return folder


def _kill_at_line(function: Callable[[], object], number: int) -> bool:
    """Run a function in a process of its own, and end that by SIGKILL right before the n-th line of our code.

    Returns:
        Whether it was killed; not, if it had fewer lines to run.
    """
    with warnings.catch_warnings():
        # The child is one thread that never returns, so what other threads held does not matter to it.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _run_until_line(function, number)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0, "the function failed in the child; its traceback is above"
    return False


def _run_until_line(function: Callable[[], object], number: int) -> None:
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.startswith(CODE):
            return None
        if event == "line":
            lines += 1
            if lines == number:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    try:
        sys.settrace(trace)
        function()
        sys.settrace(None)
        os._exit(0)
    finally:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        sys.stderr.flush()
        os._exit(1)


@pytest.fixture
def kill_at_line() -> Callable[[Callable[[], object], int], bool]:
    """Stage a crash: (function, n) → whether the process that ran it was killed before its n-th line."""
    return _kill_at_line


@pytest.fixture
def noon() -> datetime:
    """A full hour, and the present of most tests."""
    return datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port on loopback that nobody listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


@pytest.fixture(scope="session")
def new_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Put a new warehouse on SQLite at a path, and return its URL; a copy, because migrations take much longer."""
    from coinwatch.warehouse.engine import open_warehouse

    migrated = tmp_path_factory.mktemp("warehouse") / "migrated.db"
    open_warehouse(f"sqlite:///{migrated}").dispose()

    def new(path: Path) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            shutil.copy(migrated, path)
        return f"sqlite:///{path}"

    return new


@pytest.fixture
def warehouse_url(new_warehouse_url: Callable[[str], str]) -> str:
    """The URL of a warehouse that was not opened yet."""
    return new_warehouse_url("warehouse")


@pytest.fixture
def warehouse(warehouse_url: str, new_sqlite: Callable[[Path], str]) -> Iterator["Engine"]:
    """An empty warehouse."""
    from coinwatch.warehouse.engine import open_warehouse

    if warehouse_url.startswith("sqlite:///"):
        new_sqlite(Path(warehouse_url.removeprefix("sqlite:///")))
    engine = open_warehouse(warehouse_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def dag_folder() -> Path:
    """The folder of the Dag files."""
    return PROJECT / "dags"


@pytest.fixture(scope="session")
def dag_bag() -> Iterator[object]:
    """All Dags as the Dag processor sees them; a warning at parse is an error."""
    from airflow.dag_processing.dagbag import DagBag

    with warnings.catch_warnings(record=True) as caught:
        bag = DagBag(PROJECT / "dags")
    assert [str(warning.message) for warning in caught] == []
    assert bag.import_errors == {}
    return bag


@pytest.fixture(scope="session")
def consumed(dag_bag):
    """The names of the assets that start each Dag."""
    schedules = {dag_id: dag.schedule if isinstance(dag.schedule, list) else [] for dag_id, dag in dag_bag.dags.items()}
    return {dag_id: [asset.name for asset in assets] for dag_id, assets in schedules.items()}
