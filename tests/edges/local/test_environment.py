import os
import stat
import subprocess

import pytest
import yaml

from coinwatch.local import environment
from coinwatch.settings import PROJECT_DIR

USER = {
    "PATH": "/bin",
    "AIRFLOW_CONN_SLACK_DEFAULT": "slackwebhook://real",
    "AIRFLOW_CONN_WAREHOUSE_DEFAULT": "postgres://real",
    "AIRFLOW_VAR_X": "1",
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "AIRFLOW__SECRETS__BACKEND": "a.Backend",
    "AIRFLOW_HOME": "/elsewhere",
    "_AIRFLOW_PROCESS_CONTEXT": "client",
    "AWS_PROFILE": "production",
    "BITCOIN_RAW_PATH": "/real/raw.csv",
    "COINWATCH_COINS": "bitcoin,ethereum",
    "COINWATCH_DATA_DIR": "/real",
    "COINWATCH_HEARTBEAT_URL": "https://hc-ping.com/real",
    "COINWATCH_S3_BUCKET": "real",
    "COINWATCH_S3_PREFIX": "real",
    "NO_PROXY": "example.org",
}


@pytest.fixture
def home(tmp_path):
    """A home in a folder with an unusual name."""
    return tmp_path / 'my 50% "home" isn\'t $5 `ls`'


def write(home, environ=USER, *, live):
    variables = environment.airflow_variables(home, 8190, environ)
    if not live:
        variables |= environment.sandbox_variables(home / "data", 8581)
    environment.write_env_file(home, variables, live=live)
    return variables


def test_a_sandbox_gets_nothing_real_and_a_live_run_everything_but_the_configuration_of_airflow():
    kept = {"PATH", "COINWATCH_COINS", "NO_PROXY"}
    assert environment.inherited(USER, live=False) == {name: USER[name] for name in kept}
    dropped = {"AIRFLOW__CORE__EXECUTOR", "AIRFLOW_HOME", "_AIRFLOW_PROCESS_CONTEXT"}
    assert environment.inherited(USER, live=True) == {name: USER[name] for name in USER.keys() - dropped}


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_shell_that_reads_the_file_has_the_environment_of_the_sandbox(home, shell):
    variables = write(home, live=False)
    show = 'set -eu; set -a; . "$1"; set +a; env -0'
    done = subprocess.run(
        [shell, "-c", show, shell, home / "env"],
        env=USER | {"PATH": os.environ["PATH"]},
        capture_output=True,
        check=True,
    )
    shown = dict(entry.split("=", 1) for entry in done.stdout.decode().split("\0") if entry)
    # The file's loop variable stays; it is exported because of `set -a`.
    for name in ("PWD", "SHLVL", "_", "OLDPWD", "name"):
        shown.pop(name, None)
    expected = environment.inherited(USER, live=False) | variables
    assert shown == expected | {"PATH": os.environ["PATH"]}
    assert shown["AIRFLOW_HOME"] == str(home)
    assert shown["NO_PROXY"] == shown["no_proxy"] == "example.org,127.0.0.1,localhost"


def test_the_file_of_a_live_run_unsets_nothing(home):
    variables = write(home, live=True)
    assert "unset" not in (home / "env").read_text()
    assert environment.read_env_file(home / "env") == variables
    assert not [name for name in variables if name.startswith(("AIRFLOW_CONN_", "COINWATCH_"))]


@pytest.mark.parametrize("live", [True, False])
def test_keys_and_password_are_made_once_and_seen_by_the_owner_only(home, live):
    first = write(home, live=live), environment.keep_password(home)
    assert (write(home, live=live), environment.keep_password(home)) == first
    assert len(first[1]) == 24
    assert sorted(path.name for path in home.iterdir()) == ["env", "simple_auth_manager_passwords.json.generated"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {0o600}
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_airflow_settings_yaml_says_the_same_to_the_astro_cli():
    settings = yaml.safe_load((PROJECT_DIR / "airflow_settings.yaml").read_text())["airflow"]
    assert settings == {
        "pools": [
            {
                "pool_name": environment.POOL["name"],
                "pool_slot": environment.POOL["slots"],
                "pool_description": environment.POOL["description"],
            }
        ],
        "variables": [],
        "connections": [
            {
                "conn_id": conn_id,
                **{name if name == "conn_type" else f"conn_{name}": value for name, value in connection.items()},
            }
            for conn_id, connection in environment.sandbox_connections(8481).items()
        ],
    }
