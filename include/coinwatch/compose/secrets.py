"""The secrets of the stack: from `.env`, or generated at the first start and kept in a volume."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from coinwatch.errors import CoinwatchError
from coinwatch.files import replace_file
from coinwatch.secret_values import new_airflow_secrets, new_password

AIRFLOW_UID = 50000
"""User of the image apache/airflow. All containers of the stack run in group 0."""

_TOKEN = (r"[!-~]{64,}", "at least 64 characters without spaces are needed")
# Passwords are part of URLs, of PostgreSQL's password file and of the configuration of Redis.
_PASSWORD = (r"[A-Za-z0-9._~-]{12,}", "at least 12 letters, digits, '.', '_', '~' and '-' are needed")

SECRETS = {
    "FERNET_KEY": (
        r"[A-Za-z0-9_-]{43}=(,[A-Za-z0-9_-]{43}=)*",
        "32 bytes in URL-safe base64 are needed (several: newest first, separated by commas)",
    ),
    "SECRET_KEY": _TOKEN,
    "JWT_SECRET": _TOKEN,
    "ADMIN_PASSWORD": (r"[ -~\u00a0-\U0010ffff]{12,}", "at least 12 printable characters are needed"),
    "POSTGRES_PASSWORD": _PASSWORD,
    "AIRFLOW_DB_PASSWORD": _PASSWORD,
    "WAREHOUSE_PASSWORD": _PASSWORD,
    "ANALYST_PASSWORD": _PASSWORD,
    "REDIS_PASSWORD": _PASSWORD,
}
"""By variable of `.env`, which is also the file in the volume: the pattern of a valid value, and how to describe it."""


def check_secrets(environ: Mapping[str, str]) -> None:
    """Check the secrets that `.env` sets; the error has a line for each that is malformed and repeats no value."""
    problems = [
        f"{name} in .env: {needed}; leave it empty to have one generated"
        for name, (pattern, needed) in SECRETS.items()
        if (value := environ.get(name)) and not re.fullmatch(pattern, value)
    ]
    if problems:
        raise CoinwatchError("\n".join(problems))


def keep_secrets(environ: Mapping[str, str], folder: Path) -> tuple[dict[str, str], list[str]]:
    """Return each secret: from `.env`, else from the volume, else a new one. All are written to the volume.

    A new Fernet key is put before the old ones, so that what they encrypted stays readable. Also returns the names of
    those that were generated.
    """
    new, values, generated = new_airflow_secrets(), {}, []
    for name in SECRETS:
        path = folder / name
        kept = path.read_text() if path.exists() else ""
        value = environ.get(name) or kept
        if not value:
            value = new.get(name) or new_password()
            generated.append(name)
        if name == "FERNET_KEY" and kept:
            value = ",".join(dict.fromkeys([*value.split(","), *kept.split(",")]))
        # Group 0: init, PostgreSQL and Redis read it.
        write_secret(path, value, 0o440)
        values[name] = value
    return values, generated


def write_secret(path: Path, content: str, mode: int) -> None:
    """Write a file of Airflow's user, whole or not at all, into a folder that nobody else may read."""
    replace_file(path, content.encode())
    os.chown(path, AIRFLOW_UID, 0)
    path.chmod(mode)
