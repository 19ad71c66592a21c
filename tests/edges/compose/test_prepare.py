import os
import stat

import pytest

from coinwatch.compose import prepare as module
from coinwatch.compose.prepare import airflow_files, check_environment, copy_aws, open_data_folder
from coinwatch.compose.secrets import SECRETS
from coinwatch.errors import CoinwatchError

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others, as `prepare` does")


def test_all_problems_of_env_come_at_once_and_an_empty_one_is_valid(monkeypatch):
    check_environment({})
    check_environment({"AIRFLOW__CORE__EXECUTOR": "", "ADMIN_PASSWORD": ""})
    monkeypatch.setenv("COINWATCH_COINS", "Bit Coin")
    monkeypatch.setenv("COINWATCH_HISTORY_DAYS", "1")
    with pytest.raises(CoinwatchError) as failure:
        check_environment({"JWT_SECRET": "short", "ADMIN_PASSWORD": "short", "AIRFLOW__CORE__EXECUTOR": "Sequential"})
    assert [line.partition(" ")[0].partition("=")[0] for line in str(failure.value).splitlines()] == [
        "JWT_SECRET",
        "ADMIN_PASSWORD",
        "COINWATCH_COINS",
        "COINWATCH_HISTORY_DAYS",
        "AIRFLOW__CORE__EXECUTOR",
    ]


def test_airflow_gets_only_what_every_service_needs():
    files = airflow_files({name: f"the-{name}" for name in SECRETS})
    assert files == {
        "fernet_key": "the-FERNET_KEY",
        "secret_key": "the-SECRET_KEY",
        "jwt_secret": "the-JWT_SECRET",
        "broker_url": "redis://:the-REDIS_PASSWORD@redis:6379/0",
        "pgpass": "postgres:5432:*:airflow:the-AIRFLOW_DB_PASSWORD\npostgres:5432:*:coinwatch:the-WAREHOUSE_PASSWORD\n",
    }


@root
def test_a_data_folder_of_another_user_is_opened_to_airflow(tmp_path):
    data = tmp_path / "data"
    for folder in (tmp_path, *tmp_path.parents):
        if stat.S_IMODE(folder.stat().st_mode) == 0o700:
            folder.chmod(0o755)
    (data / "archive").mkdir(parents=True)
    (data / "raw.csv").write_text("")
    (data / "archive" / "snapshot.json").write_text("")
    (data / "archive" / "snapshot.json").chmod(0o444)
    for path in (data, *data.rglob("*")):
        os.chown(path, 1000, 1000)
    open_data_folder(data)
    modes = {
        path.name: (path.stat().st_uid, path.stat().st_gid, oct(path.stat().st_mode)[-3:]) for path in data.rglob("*")
    }
    assert modes == {"archive": (1000, 0, "775"), "raw.csv": (1000, 0, "664"), "snapshot.json": (1000, 0, "444")}


@root
def test_a_data_folder_that_is_not_writable_is_an_error_that_says_what_to_do(tmp_path):
    # Only root can enter.
    tmp_path.chmod(0o700)
    data = tmp_path / "data"
    data.mkdir()
    with pytest.raises(CoinwatchError, match=r"run `sudo chown -R 50000:0 ./data`$"):
        open_data_folder(data)


def test_credentials_of_aws_are_copied(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "write_secret", lambda path, content, _: path.write_text(content))
    source, target = tmp_path / "home", tmp_path / "aws"
    source.mkdir()
    (source / "credentials").write_text("[default]\n")
    for _ in range(2):
        copy_aws(source, target)
    copied = {path.name: path.read_text() for path in target.iterdir()}
    assert (copied, capsys.readouterr().out) == ({"credentials": "[default]\n"}, "")
