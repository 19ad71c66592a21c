"""The environment that configures a local Airflow: its variables, its secrets, and the file that holds both."""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from coinwatch.files import replace_file
from coinwatch.secret_values import new_airflow_secrets, new_password
from coinwatch.settings import PROJECT_DIR

HOST = "127.0.0.1"
USER = "admin"
BUCKET = "coinwatch-sandbox"
SANDBOX_PORT = 8481
"""The sandbox's CoinGecko; its Slack and its S3 have the two ports after it."""

POOL = {"name": "coingecko", "slots": 2, "description": "Requests to CoinGecko: the live poll beside history"}

_PASSWORDS = "simple_auth_manager_passwords.json.generated"

_SECRETS = {
    "AIRFLOW__CORE__FERNET_KEY": "FERNET_KEY",
    "AIRFLOW__API__SECRET_KEY": "SECRET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET": "JWT_SECRET",
}

# A live run keeps the user's connections, variables and secrets backend. A sandbox keeps nothing that leads to a real
# service or to real data.
_NOT_LIVE = re.compile(r"_?AIRFLOW_(?!CONN_|VAR_|_SECRETS__)")
_NOT_SANDBOX = r"_?AIRFLOW_|AWS_|BITCOIN_|COINWATCH_(DATA_DIR|HEARTBEAT_URL|S3_)"

_HEADER = """\
# Written by `make run` at each start; the keys stay. With these variables Airflow's own commands work:
#   set -a; . {path}; set +a
#   .venv/bin/airflow dags list
"""

_UNSET = f"for name in $(env | sed 's/=.*//' | grep -E '^({_NOT_SANDBOX})'); do unset \"$name\"; done\n"


def inherited(environ: Mapping[str, str], *, live: bool) -> dict[str, str]:
    """Return what a run takes over from the user's environment."""
    dropped = _NOT_LIVE if live else re.compile(_NOT_SANDBOX)
    return {name: value for name, value in environ.items() if not dropped.match(name)}


def airflow_variables(home: Path, port: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that configure Airflow; its keys are new only if the home has none yet."""
    kept, new = read_env_file(home / "env"), new_airflow_secrets()
    no_proxy = environ.get("no_proxy") or environ.get("NO_PROXY")
    # The parts of Airflow talk to each other on loopback, where a proxy cannot reach them.
    no_proxy = f"{no_proxy},127.0.0.1,localhost" if no_proxy else "127.0.0.1,localhost"
    values = {
        "AIRFLOW_HOME": home,
        "AIRFLOW__CORE__DAGS_FOLDER": PROJECT_DIR / "dags",
        "AIRFLOW__CORE__PLUGINS_FOLDER": PROJECT_DIR / "plugins",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        # One process each, forked at the start.
        "AIRFLOW__CORE__PARALLELISM": 4,
        "AIRFLOW__CORE__LOAD_EXAMPLES": False,
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": False,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{HOST}:{port}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": home / _PASSWORDS,
        # Seconds to wait for another writer; with the default of 5 a busy scheduler breaks `airflow backfill create`.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}?timeout=60",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": home / "logs",
        # Seconds: tasks that a crash interrupted are started again soon after the next start.
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": 20,
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": 60,
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": port,
        "AIRFLOW__API__BASE_URL": f"http://localhost:{port}",
        "AIRFLOW__API__WORKERS": 1,
        # Seconds: the first answers of a busy machine are slow; with the default of 5 a task fails.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": 30,
        # Seconds until a new or changed Dag file is noticed.
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": 10,
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": 15,
        "no_proxy": no_proxy,
        "NO_PROXY": no_proxy,
    }
    secrets = {variable: kept.get(variable, new[name]) for variable, name in _SECRETS.items()}
    return {name: str(value) for name, value in values.items()} | secrets


def sandbox_variables(data_dir: Path, first_port: int) -> dict[str, str]:
    """Return the variables of a run that uses the sandbox."""
    return {
        "COINWATCH_DATA_DIR": str(data_dir),
        "COINWATCH_S3_BUCKET": BUCKET,
        # The sandbox has no AWS account, whatever this machine has.
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    } | {
        f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(connection)
        for conn_id, connection in sandbox_connections(first_port).items()
    }


def sandbox_connections(first_port: int) -> dict[str, dict[str, object]]:
    """Return the sandbox's connections by their id, as `airflow_settings.yaml` has them for the Astro CLI."""
    coingecko, slack, s3 = (f"http://{HOST}:{first_port + offset}" for offset in range(3))
    return {
        "coingecko_default": {
            "conn_type": "http",
            "host": f"{coingecko}/api/v3",
            "password": "sandbox-key-of-nobody",
            "extra": {"plan": "demo", "simulated": True},
        },
        "slack_default": {
            "conn_type": "slackwebhook",
            "host": f"{slack}/services",
            "password": "T-SANDBOX/B-SANDBOX/OF-NOBODY",
        },
        "aws_default": {
            "conn_type": "aws",
            "login": "sandbox",
            "password": "sandbox",
            "extra": {
                "endpoint_url": s3,
                "region_name": "us-east-1",
                "config_kwargs": {"s3": {"addressing_style": "path"}},
            },
        },
    }


def write_env_file(home: Path, variables: Mapping[str, str], *, live: bool) -> None:
    """Write the variables as a shell reads them; in the sandbox it also unsets what `inherited` drops."""
    path = home / "env"
    lines = "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
    _write_private(path, _HEADER.format(path=shlex.quote(str(path))) + ("" if live else _UNSET) + lines)


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of a file of `write_env_file`; none if there is no file."""
    words = shlex.split(path.read_text(encoding="utf-8"), comments=True) if path.exists() else []
    return dict(word.split("=", 1) for word in words if re.match(r"\w+=", word))


def keep_password(home: Path) -> str:
    """Return the password of the user ``admin``; made at the first start."""
    path = home / _PASSWORDS
    if not path.exists():
        _write_private(path, json.dumps({USER: new_password()}))
    return str(json.loads(path.read_text(encoding="utf-8"))[USER])


def _write_private(path: Path, text: str) -> None:
    # Nobody else sees it before its mode is set: the folder is private.
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    replace_file(path, text.encode())
    path.chmod(0o600)
