import configparser
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from coinwatch.local.home import AirflowHome

INCLUDE = Path(__file__).resolve().parents[3] / "include"


@pytest.fixture
def home(tmp_path):
    """A home in a folder with an unusual name."""
    return AirflowHome(tmp_path / "my 50% home", tmp_path / "my project", 8090)


def test_secrets_are_made_once_and_seen_by_the_owner_only(home):
    home.prepare(None)
    first = {path.name: path.read_bytes() for path in home.folder.iterdir()}
    home.prepare(None)
    assert {path.name: path.read_bytes() for path in home.folder.iterdir()} == first
    assert sorted(first) == ["airflow.cfg", "secrets.json", "simple_auth_manager_passwords.json.generated"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.folder.iterdir()} == {0o600}
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700
    assert len(home.password) == 16


def test_airflow_reads_the_configuration_as_it_is_meant(home):
    home.prepare(None)
    parser = configparser.ConfigParser()
    parser.read(home.folder / "airflow.cfg")
    assert parser["core"]["dags_folder"] == str(home.project / "dags")
    assert parser["core"]["executor"] == "LocalExecutor"
    assert parser["core"]["execution_api_server_url"] == "http://127.0.0.1:8090/execution/"
    assert parser["database"]["sql_alchemy_conn"] == f"sqlite:///{home.folder}/airflow.db?timeout=60"
    assert parser["api"]["host"] == "127.0.0.1"
    assert parser["api"]["base_url"] == "http://localhost:8090"


def test_whoever_uses_the_sandboxs_home_by_hand_is_in_the_sandbox(home):
    home.prepare({"COINWATCH_DATA_DIR": "/of/the/sandbox"})
    settings = home.folder / "config" / "airflow_local_settings.py"
    show = "import os, runpy, sys; runpy.run_path(sys.argv[1]); print(sorted(os.environ.items()))"
    environ = {"AIRFLOW_CONN_SLACK_DEFAULT": "real", "COINWATCH_DATA_DIR": "/real", "PYTHONPATH": str(INCLUDE)}
    done = subprocess.run(
        [sys.executable, "-c", show, settings],
        env=environ | {"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "('COINWATCH_DATA_DIR', '/of/the/sandbox')" in done.stdout
    assert "SLACK" not in done.stdout


def test_a_home_for_real_services_takes_nothing_away(home):
    home.prepare({"COINWATCH_DATA_DIR": "/of/the/sandbox"})
    home.prepare(None)
    assert list((home.folder / "config").iterdir()) == []


def test_a_tasks_log_is_where_airflow_writes_it(home):
    logs = home.folder / "logs"
    assert home.task_log("d", "manual__x", "t", -1, 2) == logs / "dag_id=d/run_id=manual__x/task_id=t/attempt=2.log"
    assert home.task_log("d", "r", "t", 0, 1) == logs / "dag_id=d/run_id=r/task_id=t/map_index=0/attempt=1.log"
