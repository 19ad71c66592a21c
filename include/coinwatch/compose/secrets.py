"""The secrets of the stack: from `.env`, or made at the first start and kept in volumes."""

import base64
import binascii
import os
import re
import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from coinwatch.local.errors import WrongInput

PASSWORD_MIN = 12
"""Characters; a generated one has 24."""

JWT_MIN = 64
"""Bytes that HMAC-SHA512, which signs Airflow's tokens, asks for."""


def new_password() -> str:
    """A password of 24 letters and digits: 143 bits."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(24))


def new_fernet_key() -> str:
    """A key as Fernet wants it."""
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def new_token() -> str:
    """64 hexadecimal digits."""
    return secrets.token_hex(32)


def _wrong_password(value: str) -> str | None:
    # It stands in URLs and in the configuration of Redis.
    if not re.fullmatch(rf"[A-Za-z0-9._~-]{{{PASSWORD_MIN},}}", value):
        return f"at least {PASSWORD_MIN} letters, digits, '.', '_', '~' and '-' are needed"
    return None


def _wrong_admin_password(value: str) -> str | None:
    if len(value) < PASSWORD_MIN or not value.isprintable():
        return f"at least {PASSWORD_MIN} printable characters are needed"
    return None


def _wrong_fernet_key(value: str) -> str | None:
    for key in value.split(","):
        try:
            right = len(base64.b64decode(key, altchars=b"-_", validate=True)) == 32
        except (binascii.Error, ValueError):
            right = False
        if not right:
            return "32 bytes in URL-safe base64 are needed (several, the newest first, with commas between them)"
    return None


def _wrong_token(value: str) -> str | None:
    if len(value) < JWT_MIN or not (value.isascii() and value.isprintable()) or " " in value:
        return f"at least {JWT_MIN} characters without spaces are needed"
    return None


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret.

    Attributes:
        variable: Its name in `.env`.
        file: Its name in the volume.
        new: Makes one.
        wrong: What is wrong with a value, in words that do not repeat it; none if nothing is.
    """

    variable: str
    file: str
    new: Callable[[], str]
    wrong: Callable[[str], str | None]


FERNET_KEY = Secret("FERNET_KEY", "fernet_key", new_fernet_key, _wrong_fernet_key)
JWT_SECRET = Secret("JWT_SECRET", "jwt_secret", new_token, _wrong_token)
SECRET_KEY = Secret("SECRET_KEY", "secret_key", new_token, _wrong_token)
ADMIN_PASSWORD = Secret("ADMIN_PASSWORD", "admin_password", new_password, _wrong_admin_password)
POSTGRES_PASSWORD = Secret("POSTGRES_PASSWORD", "postgres_password", new_password, _wrong_password)
AIRFLOW_DB_PASSWORD = Secret("AIRFLOW_DB_PASSWORD", "airflow_password", new_password, _wrong_password)
WAREHOUSE_PASSWORD = Secret("WAREHOUSE_PASSWORD", "warehouse_password", new_password, _wrong_password)
ANALYST_PASSWORD = Secret("ANALYST_PASSWORD", "analyst_password", new_password, _wrong_password)
REDIS_PASSWORD = Secret("REDIS_PASSWORD", "redis_password", new_password, _wrong_password)

ALL = (
    FERNET_KEY,
    JWT_SECRET,
    SECRET_KEY,
    ADMIN_PASSWORD,
    POSTGRES_PASSWORD,
    AIRFLOW_DB_PASSWORD,
    WAREHOUSE_PASSWORD,
    ANALYST_PASSWORD,
    REDIS_PASSWORD,
)


def check_secrets(environ: Mapping[str, str]) -> None:
    """See that each secret of `.env` can be used.

    Raises:
        WrongInput: One cannot; the message has a line for each, and no value.
    """
    problems = [
        f"{secret.variable} in .env: {wrong}; left empty, one is made and kept"
        for secret in ALL
        if (value := environ.get(secret.variable, "")) and (wrong := secret.wrong(value))
    ]
    if problems:
        raise WrongInput("\n".join(problems))


def keep_secrets(environ: Mapping[str, str], folder: Path) -> tuple[dict[Secret, str], list[Secret]]:
    """The value of each secret: that of `.env`, else the one that is kept, else a new one; then it is kept.

    A new Fernet key stands before the old ones, so that what was encrypted with those can still be read.

    Args:
        environ: What `.env` says.
        folder: Where they are kept; nobody but root can read it.

    Returns:
        The values, and which of them are new.
    """
    values: dict[Secret, str] = {}
    new: list[Secret] = []
    for secret in ALL:
        path = folder / secret.file
        kept = path.read_text() if path.exists() else ""
        value = environ.get(secret.variable, "") or kept
        if secret is FERNET_KEY and kept and value != kept:
            value = ",".join(dict.fromkeys([*value.split(","), *kept.split(",")]))
        if not value:
            value = secret.new()
            new.append(secret)
        if value != kept:
            write_private(path, value)
        values[secret] = value
    return values, new


def write_private(path: Path, content: str, owner: tuple[int, int] | None = None) -> None:
    """Write a file that only its owner can read, whole or not at all.

    Args:
        path: The file.
        content: All of it.
        owner: User and group; whoever writes it, if absent.
    """
    unfinished = path.with_name(f".{path.name}")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if owner:
        os.chown(unfinished, *owner)
    unfinished.replace(path)
