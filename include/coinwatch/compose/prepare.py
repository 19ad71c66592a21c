"""`prepare`, the first container: checks `.env`, makes the secrets, and sees that the data folder can be written.

It runs as root, because a folder of the host belongs to whoever cloned the project, and Airflow runs as somebody else.
"""

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.request import urlopen

from coinwatch.compose import layout, secrets
from coinwatch.compose.output import say
from coinwatch.compose.secrets import Secret, check_secrets, keep_secrets, write_private
from coinwatch.local.errors import RunError, WrongInput
from coinwatch.local.home import sandbox_settings_file
from coinwatch.local.run import BUCKET
from coinwatch.rules import load_rules
from coinwatch.settings import load_settings

EXECUTORS = ("LocalExecutor", "CeleryExecutor")

_AIRFLOW = (layout.AIRFLOW_USER, layout.AIRFLOW_GROUP)
_SERVER_USER = (999, 999)
"""Whom the images postgres and redis run as."""


def prepare(environ: Mapping[str, str], folder: Path, say: Callable[[str], None]) -> None:
    """Do all that has to be done before the first server starts.

    Args:
        environ: What `.env` and docker-compose.yaml say.
        folder: The volume of this container alone, which keeps the secrets.
        say: Tells whoever reads the log.

    Raises:
        WrongInput: A value is malformed, or the data folder cannot be written.
        RunError: The stack runs, and would become another one.
    """
    check_environment(environ)
    sandbox = _sandbox_is_there()
    _check_mode(sandbox=sandbox)
    open_folder(layout.DATA, "./data")
    values, new = keep_secrets(environ, folder)
    hand_out(values, environ, sandbox=sandbox)
    _copy_aws(say)
    if new:
        say(f"made and kept: {', '.join(secret.variable for secret in new)}")
    if sandbox:
        say("SANDBOX: all prices are simulated, nothing leaves this machine; its data is in data/sandbox-compose")


def check_environment(environ: Mapping[str, str]) -> None:
    """See that every value of `.env` can be used.

    Raises:
        WrongInput: One cannot; the message has a line for each.
    """
    problems = []
    for check in (check_secrets, _check_executor, _check_settings):
        try:
            check(environ)
        except (WrongInput, ValueError) as error:
            problems.append(str(error))
    if problems:
        raise WrongInput("\n".join(problems))


def _check_executor(environ: Mapping[str, str]) -> None:
    executor = environ.get("AIRFLOW__CORE__EXECUTOR") or EXECUTORS[0]
    if executor not in EXECUTORS:
        raise WrongInput(f"AIRFLOW__CORE__EXECUTOR={executor!r} in .env: allowed are {' and '.join(EXECUTORS)}")


def _check_settings(_: Mapping[str, str]) -> None:
    load_rules(load_settings().config)


def _sandbox_is_there() -> bool:
    """Whether the profile `sandbox` was chosen: then its services are healthy by now."""
    if not layout.is_there(layout.SANDBOX_HOST):
        return False
    try:
        urlopen(f"http://{layout.SANDBOX_HOST}:{layout.SANDBOX_PORT}/api/v3/ping", timeout=10).close()
    except OSError as error:
        raise RunError(f"the sandbox does not answer ({error}): see docker compose logs sandbox") from None
    return True


def _check_mode(*, sandbox: bool) -> None:
    mode = layout.AIRFLOW / "mode"
    if not mode.exists() or (mode.read_text() == "sandbox") == sandbox or not _is_running(layout.POSTGRES_HOST, 5432):
        return
    words = ["with the real services", "in the sandbox"]
    raise RunError(
        f"this stack runs {words[not sandbox]}, and is to run {words[sandbox]}: end it first "
        "(docker compose --profile '*' down), then start it again"
    )


def _is_running(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=3).close()
    except OSError:
        return False
    return True


def open_folder(folder: Path, name: str) -> None:
    """See that Airflow's user can write to the data folder and everything in it.

    What is there goes to the group 0, which Airflow runs in, with the rights that its owner has; the owner stays.

    Args:
        folder: The folder.
        name: What the user calls it.

    Raises:
        WrongInput: It cannot be written; the message says what to do.
    """
    try:
        for path in (folder, *folder.rglob("*")):
            _open_to_group(path)
        # The one proof that holds on every kind of file system.
        probe = 'file=$(mktemp "$0/.writable.XXXXXX") && rm "$file"'
        subprocess.run(  # noqa: S603 - our own program
            ["/bin/sh", "-c", probe, str(folder)],
            user=layout.AIRFLOW_USER,
            group=layout.AIRFLOW_GROUP,
            extra_groups=[],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.stderr.decode().strip().rpartition(": ")[2]
        raise WrongInput(
            f"the data folder {name} cannot be written by Airflow, which runs as user {layout.AIRFLOW_USER} "
            f"({reason}): run `sudo chown -R {layout.AIRFLOW_USER}:{layout.AIRFLOW_GROUP} {name}`"
        ) from None


def _open_to_group(path: Path) -> None:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode) or status.st_uid == layout.AIRFLOW_USER:
        return
    mode = stat.S_IMODE(status.st_mode)
    wanted = mode | (mode & 0o700) >> 3
    if status.st_gid != layout.AIRFLOW_GROUP:
        os.chown(path, -1, layout.AIRFLOW_GROUP)
    if mode != wanted:
        path.chmod(wanted)


def hand_out(values: Mapping[Secret, str], environ: Mapping[str, str], *, sandbox: bool) -> None:
    """Give each service the secrets that it needs, and no other, in its own volume."""
    airflow, redis = values[secrets.AIRFLOW_DB_PASSWORD], values[secrets.REDIS_PASSWORD]
    address = f"airflow:{airflow}@postgres/{layout.database('airflow', sandbox=sandbox)}"
    _give(
        layout.AIRFLOW,
        _AIRFLOW,
        {
            "mode": "sandbox" if sandbox else "live",
            "fernet_key": values[secrets.FERNET_KEY],
            "jwt_secret": values[secrets.JWT_SECRET],
            "secret_key": values[secrets.SECRET_KEY],
            "sql_alchemy_conn": f"postgresql+psycopg2://{address}",
            "result_backend": f"db+postgresql://{address}",
            "broker_url": f"redis://:{redis}@redis:6379/{int(sandbox)}",
        },
    )
    settings = layout.AIRFLOW / "airflow_local_settings.py"
    if sandbox:
        values_there = {
            "COINWATCH_DATA_DIR": str(layout.SANDBOX_DATA),
            "COINWATCH_S3_BUCKET": BUCKET,
        }
        write_private(settings, sandbox_settings_file(values_there), _AIRFLOW)
    else:
        settings.unlink(missing_ok=True)
    told = bool(environ.get(secrets.ADMIN_PASSWORD.variable))
    init = (secrets.ADMIN_PASSWORD, secrets.POSTGRES_PASSWORD, secrets.AIRFLOW_DB_PASSWORD, secrets.WAREHOUSE_PASSWORD)
    files = {secret.file: values[secret] for secret in (*init, secrets.ANALYST_PASSWORD)}
    _give(layout.INIT, _AIRFLOW, files | {"admin_password_from": ".env" if told else "here"})
    _give(layout.POSTGRES, _SERVER_USER, {"password": values[secrets.POSTGRES_PASSWORD]})
    _give(layout.REDIS, _SERVER_USER, {"redis.conf": f"requirepass {redis}\n", "password": redis})


def _give(folder: Path, owner: tuple[int, int], files: Mapping[str, str]) -> None:
    folder.chmod(0o700)
    os.chown(folder, *owner)
    for name, content in files.items():
        write_private(folder / name, content, owner)


def _copy_aws(say: Callable[[str], None]) -> None:
    """Copy AWS credentials to where Airflow's user can read them: those of a person are that person's alone."""
    folder = layout.AIRFLOW / "aws"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    os.chown(folder, *_AIRFLOW)
    for name in ("config", "credentials"):
        path = layout.AWS / name
        try:
            content = path.read_text()
        except FileNotFoundError:
            continue
        except OSError as error:
            say(f"~/.aws/{name} cannot be read ({error.strerror}): the connection aws_default can have the credentials")
            continue
        write_private(folder / name, content, _AIRFLOW)


def main() -> int:
    """What the container runs.

    Returns:
        Exit status: 2 if something was asked for that cannot be, 1 if something else went wrong.
    """
    try:
        prepare(os.environ, layout.KEPT, say)
    except RunError as error:
        sys.stderr.write(f"coinwatch: {error}\n")
        return error.status
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
