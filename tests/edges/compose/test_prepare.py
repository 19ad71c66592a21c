import os
import socket
import stat

import pytest

from coinwatch.compose import layout, prepare, secrets
from coinwatch.compose.prepare import check_environment, hand_out, open_folder
from coinwatch.local.errors import RunError, WrongInput

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others, as `prepare` does")


@pytest.fixture
def volumes(tmp_path, monkeypatch):
    """The volumes of `prepare`, in a folder."""
    for name in ("AIRFLOW", "INIT", "POSTGRES", "REDIS"):
        folder = tmp_path / name.lower()
        folder.mkdir()
        monkeypatch.setattr(layout, name, folder)
    monkeypatch.setattr(prepare, "_AIRFLOW", (os.geteuid(), os.getegid()))
    monkeypatch.setattr(prepare, "_SERVER_USER", (os.geteuid(), os.getegid()))
    return tmp_path


@pytest.fixture
def values(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    return secrets.keep_secrets({}, kept)[0]


def test_every_problem_of_env_is_said_at_once(monkeypatch):
    monkeypatch.setenv("COINWATCH_COINS", "Bit Coin")
    monkeypatch.setenv("COINWATCH_HISTORY_DAYS", "1000")
    with pytest.raises(WrongInput) as failure:
        check_environment({"JWT_SECRET": "short", "AIRFLOW__CORE__EXECUTOR": "SequentialExecutor"})
    starts = [
        "JWT_SECRET in .env: ",
        "AIRFLOW__CORE__EXECUTOR='SequentialExecutor' in .env: allowed are LocalExecutor and CeleryExecutor",
        "COINWATCH_COINS='Bit Coin': ",
        "COINWATCH_HISTORY_DAYS='1000': ",
    ]
    lines = str(failure.value).splitlines()
    assert len(lines) == len(starts)
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts


def test_nothing_in_env_is_all_right():
    check_environment({})
    check_environment({"AIRFLOW__CORE__EXECUTOR": "", "ADMIN_PASSWORD": ""})


def test_each_service_gets_what_it_needs_and_nothing_more(volumes, values):
    hand_out(values, {}, sandbox=False)
    given = {
        folder: {path.name for path in (volumes / folder).iterdir()}
        for folder in ("airflow", "init", "postgres", "redis")
    }
    assert given == {
        "airflow": {
            "mode",
            "fernet_key",
            "jwt_secret",
            "secret_key",
            "sql_alchemy_conn",
            "result_backend",
            "broker_url",
        },
        "init": {
            "admin_password",
            "admin_password_from",
            "postgres_password",
            "airflow_password",
            "warehouse_password",
            "analyst_password",
        },
        "postgres": {"password"},
        "redis": {"redis.conf", "password"},
    }
    airflow = values[secrets.AIRFLOW_DB_PASSWORD]
    address = (volumes / "airflow" / "sql_alchemy_conn").read_text()
    assert address == f"postgresql+psycopg2://airflow:{airflow}@postgres/airflow"
    assert stat.S_IMODE((volumes / "airflow").stat().st_mode) == 0o700


def test_the_sandbox_has_databases_and_data_of_its_own(volumes, values):
    hand_out(values, {}, sandbox=True)
    assert (volumes / "airflow" / "sql_alchemy_conn").read_text().endswith("@postgres/airflow_sandbox")
    settings = volumes / "airflow" / "airflow_local_settings.py"
    assert "/opt/airflow/data/sandbox-compose" in settings.read_text()
    compile(settings.read_text(), settings, "exec")
    hand_out(values, {}, sandbox=False)
    assert not settings.exists()
    assert (volumes / "airflow" / "sql_alchemy_conn").read_text().endswith("@postgres/airflow")


def test_a_stack_that_runs_does_not_become_another_one(volumes, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        running = prepare._is_running
        monkeypatch.setattr(prepare, "_is_running", lambda _host, _port: running("127.0.0.1", port))
        prepare._check_mode(sandbox=True)
        (volumes / "airflow" / "mode").write_text("live")
        prepare._check_mode(sandbox=False)
        with pytest.raises(RunError, match="runs with the real services, and is to run in the sandbox: end it first"):
            prepare._check_mode(sandbox=True)
    prepare._check_mode(sandbox=True)


@root
def test_a_data_folder_of_somebody_else_is_opened_to_airflow(tmp_path):
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents[:2]:
        folder.chmod(0o755)
    data = tmp_path / "data"
    (data / "archive").mkdir(parents=True)
    (data / "raw.csv").write_text("")
    (data / "archive" / "snapshot.json").write_text("")
    (data / "archive" / "snapshot.json").chmod(0o444)
    for path in (data, *data.rglob("*")):
        os.chown(path, 1000, 1000)
    open_folder(data, "./data")
    modes = {
        path.name: (path.stat().st_uid, path.stat().st_gid, oct(path.stat().st_mode)[-3:]) for path in data.rglob("*")
    }
    assert modes == {
        "archive": (1000, 0, "775"),
        "raw.csv": (1000, 0, "664"),
        "snapshot.json": (1000, 0, "444"),
    }


@root
def test_a_data_folder_that_cannot_be_written_is_named_with_what_to_do(tmp_path):
    # Nobody but root comes through to it.
    tmp_path.chmod(0o700)
    data = tmp_path / "data"
    data.mkdir()
    with pytest.raises(WrongInput) as failure:
        open_folder(data, "./data")
    assert str(failure.value).startswith(
        "the data folder ./data cannot be written by Airflow, which runs as user 50000 ("
    )
    assert str(failure.value).endswith("): run `sudo chown -R 50000:0 ./data`")


def test_credentials_of_aws_are_copied_and_what_is_not_there_is_no_news(volumes, monkeypatch):
    aws = volumes / "home"
    aws.mkdir()
    (aws / "credentials").write_text("[default]\n")
    monkeypatch.setattr(layout, "AWS", aws)
    said = []
    for _ in range(2):
        prepare._copy_aws(said.append)
    copied = {path.name: path.read_text() for path in (volumes / "airflow" / "aws").iterdir()}
    assert (copied, said) == ({"credentials": "[default]\n"}, [])
