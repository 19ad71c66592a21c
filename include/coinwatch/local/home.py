"""An Airflow for one person on one machine: its AIRFLOW_HOME, configuration and secrets."""

import base64
import configparser
import io
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coinwatch.files import replace_file
from coinwatch.local.ports import HOST

USER = "admin"

_PASSWORDS = "simple_auth_manager_passwords.json.generated"

_HEADER = """\
# Written by `make run` at each start: what you change here is lost.
# With it, Airflow's own commands work: AIRFLOW_HOME={home} .venv/bin/airflow …

"""

_SANDBOX_SETTINGS = '''\
"""Written at each start; Airflow reads it before anything else.

Whoever works with this AIRFLOW_HOME works in the sandbox: with its data folder and its services, and with no
connection of his own.
"""

import os

from coinwatch.local.environment import sandbox_environment

environment = sandbox_environment(os.environ, {values!r})
for name in set(os.environ) - set(environment):
    del os.environ[name]
os.environ.update(environment)
'''


@dataclass(frozen=True, slots=True)
class AirflowHome:
    """Where a local Airflow keeps its configuration, database and logs.

    Attributes:
        folder: AIRFLOW_HOME.
        project: Folder that holds dags/ and plugins/.
        port: Where it serves its page and API.
    """

    folder: Path
    project: Path
    port: int

    @property
    def url(self) -> str:
        """Where people find its page."""
        return f"http://localhost:{self.port}"

    @property
    def password(self) -> str:
        """The password of the user ``admin``."""
        passwords: dict[str, str] = json.loads((self.folder / _PASSWORDS).read_text())
        return passwords[USER]

    def log(self, name: str) -> Path:
        """The log of one of its parts."""
        return self.folder / "logs" / f"{name}.log"

    def task_log(self, dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int) -> Path:
        """The log of one try of a task."""
        folder = self.folder / "logs" / f"dag_id={dag_id}" / f"run_id={run_id}" / f"task_id={task_id}"
        return (folder / f"map_index={map_index}" if map_index >= 0 else folder) / f"attempt={try_number}.log"

    def prepare(self, sandbox_values: Mapping[str, str] | None) -> None:
        """Write configuration and secrets; the secrets only once.

        Args:
            sandbox_values: Environment variables that hold in the sandbox; none if this is not the sandbox's.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        # Keys and passwords lie here.
        self.folder.chmod(0o700)
        keys = self._keep("secrets.json", _new_keys())
        self._keep(_PASSWORDS, {USER: secrets.token_urlsafe(12)})
        _write_private(self.folder / "airflow.cfg", self._configuration(keys).encode())
        settings = self.folder / "config" / "airflow_local_settings.py"
        if sandbox_values is None:
            settings.unlink(missing_ok=True)
        else:
            replace_file(settings, sandbox_settings_file(sandbox_values).encode())

    def _keep(self, name: str, new: dict[str, str]) -> dict[str, str]:
        """What a file of secrets holds; made at the first start."""
        path = self.folder / name
        if not path.exists():
            _write_private(path, json.dumps(new).encode())
        kept: dict[str, str] = json.loads(path.read_bytes())
        return kept

    def _configuration(self, keys: Mapping[str, str]) -> str:
        sections: dict[str, dict[str, object]] = {
            "core": {
                "dags_folder": self.project / "dags",
                "plugins_folder": self.project / "plugins",
                "executor": "LocalExecutor",
                # A worker each is forked at the start.
                "parallelism": 4,
                "load_examples": False,
                "dags_are_paused_at_creation": False,
                "execution_api_server_url": f"http://{HOST}:{self.port}/execution/",
                "fernet_key": keys["fernet_key"],
                "simple_auth_manager_users": f"{USER}:admin",
                "simple_auth_manager_passwords_file": self.folder / _PASSWORDS,
            },
            # Seconds to wait for another writer; by default a busy scheduler makes `airflow backfill create` fail at 5.
            "database": {"sql_alchemy_conn": f"sqlite:///{self.folder / 'airflow.db'}?timeout=60"},
            "logging": {
                "base_log_folder": self.folder / "logs",
                "dag_processor_child_process_log_directory": self.folder / "logs" / "dag_processor",
            },
            # Seconds: what a machine that was switched off left running is taken up again soon after the next start.
            "scheduler": {"orphaned_tasks_check_interval": 20, "task_instance_heartbeat_timeout": 60},
            "api": {
                "host": HOST,
                "port": self.port,
                "base_url": self.url,
                "workers": 1,
                "secret_key": keys["secret_key"],
            },
            "api_auth": {"jwt_secret": keys["jwt_secret"]},
            # Seconds: at the start, and on a busy machine, the first answers are slow; by default a task fails at 5.
            "workers": {"execution_api_timeout": 30},
            # Seconds: a new Dag file, and a change of one, is there soon.
            "dag_processor": {"refresh_interval": 10, "min_file_process_interval": 15},
        }
        # A percent sign in the name of a folder is to stand for itself.
        plain = {
            section: {name: str(value).replace("%", "%%") for name, value in options.items()}
            for section, options in sections.items()
        }
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_dict(plain)
        text = io.StringIO()
        text.write(_HEADER.format(home=self.folder))
        parser.write(text)
        return text.getvalue()


def sandbox_settings_file(values: Mapping[str, str]) -> str:
    """The ``airflow_local_settings.py`` of the sandbox.

    Args:
        values: Environment variables that hold there.
    """
    return _SANDBOX_SETTINGS.format(values=dict(values))


def _new_keys() -> dict[str, str]:
    return {
        "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "secret_key": secrets.token_hex(32),
        "jwt_secret": secrets.token_hex(32),
    }


def _write_private(path: Path, content: bytes) -> None:
    # The folder is private already, so nobody else sees the file before its mode is set.
    replace_file(path, content)
    path.chmod(0o600)
