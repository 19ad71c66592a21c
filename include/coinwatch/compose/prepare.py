"""`prepare`, the first container: checks `.env`, writes the secrets, and makes the data folder writable for Airflow.

It runs as root: the data folder belongs to the user who cloned the project, and Airflow runs as another user.
"""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from coinwatch.compose.secrets import AIRFLOW_UID, check_secrets, keep_secrets, write_secret
from coinwatch.errors import CoinwatchError
from coinwatch.rules import load_rules
from coinwatch.settings import load_settings

# As mounted in docker-compose.yaml.
SECRETS = Path("/run/coinwatch/secrets")
"""All secrets: for `init`, PostgreSQL and Redis."""
AIRFLOW = Path("/run/coinwatch/airflow")
"""What every Airflow container reads."""
DATA = Path("/opt/airflow/data")
AWS = Path("/home/airflow/.aws")

EXECUTORS = ("LocalExecutor", "CeleryExecutor")


def prepare(environ: Mapping[str, str]) -> None:
    """Do what has to be done before the first server starts."""
    check_environment(environ)
    open_data_folder(DATA)
    for folder in (SECRETS, AIRFLOW):
        folder.chmod(0o750)
    values, generated = keep_secrets(environ, SECRETS)
    if generated:
        say(f"generated and kept: {', '.join(generated)}")
    write_secret(SECRETS / "redis.conf", f"requirepass {values['REDIS_PASSWORD']}\n", 0o440)
    for name, content in airflow_files(values).items():
        write_secret(AIRFLOW / name, content, 0o400)
    copy_aws(AWS, AIRFLOW / "aws")


def check_environment(environ: Mapping[str, str]) -> None:
    """Check every value of `.env`; the error has a line for each that is malformed."""
    problems = []
    for check in (lambda: check_secrets(environ), lambda: load_rules(load_settings().config)):
        try:
            check()
        except (CoinwatchError, ValueError) as error:
            problems.append(str(error))
    executor = environ.get("AIRFLOW__CORE__EXECUTOR") or EXECUTORS[0]
    if executor not in EXECUTORS:
        problems.append(f"AIRFLOW__CORE__EXECUTOR={executor!r}: allowed are {' and '.join(EXECUTORS)}")
    if problems:
        raise CoinwatchError("\n".join(problems))


def airflow_files(values: Mapping[str, str]) -> dict[str, str]:
    """Return the files that every Airflow container reads, by name.

    The databases' passwords are in PostgreSQL's password file (`PGPASSFILE`), so no address contains one.
    """
    return {
        "fernet_key": values["FERNET_KEY"],
        "secret_key": values["SECRET_KEY"],
        "jwt_secret": values["JWT_SECRET"],
        "broker_url": f"redis://:{values['REDIS_PASSWORD']}@redis:6379/0",
        "pgpass": f"postgres:5432:*:airflow:{values['AIRFLOW_DB_PASSWORD']}\n"
        f"postgres:5432:*:coinwatch:{values['WAREHOUSE_PASSWORD']}\n",
    }


def open_data_folder(folder: Path) -> None:
    """Give the group 0, which Airflow runs in, the owner's rights to the data folder and its content."""
    try:
        for path in (folder, *folder.rglob("*")):
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode) or status.st_uid == AIRFLOW_UID:
                continue
            mode = stat.S_IMODE(status.st_mode)
            if status.st_gid != 0:
                os.chown(path, -1, 0)
            if mode != (wanted := mode | (mode & 0o700) >> 3):
                path.chmod(wanted)
        # Only a write proves it, whatever the file system.
        subprocess.run(  # noqa: S603 - fixed command
            ["/bin/sh", "-c", 'file=$(mktemp "$0/.writable.XXXXXX") && rm "$file"', str(folder)],
            user=AIRFLOW_UID,
            group=0,
            extra_groups=[],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.stderr.decode().strip().rpartition(": ")[2]
        raise CoinwatchError(
            f"Airflow (user {AIRFLOW_UID}) cannot write to the data folder ./data ({reason}): "
            f"run `sudo chown -R {AIRFLOW_UID}:0 ./data`"
        ) from None


def copy_aws(source: Path, target: Path) -> None:
    """Copy AWS credentials to where Airflow's user can read them: in ~/.aws only their owner can."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o750)
    for name in ("config", "credentials"):
        try:
            content = (source / name).read_text()
        except FileNotFoundError:
            continue
        except OSError as error:
            say(f"~/.aws/{name} is not readable ({error.strerror}): use the connection aws_default instead")
            continue
        write_secret(target / name, content, 0o400)


def say(line: str) -> None:
    """Write a line to the container's log, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run `prepare`; return the exit status."""
    try:
        prepare(os.environ)
    except CoinwatchError as error:
        sys.stderr.write(f"coinwatch: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
