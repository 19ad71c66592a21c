"""Generated secrets, the same for `make run` and Docker Compose."""

import base64
import secrets
import string

_LETTERS = string.ascii_letters + string.digits


def new_airflow_secrets() -> dict[str, str]:
    """Return new values for Airflow's `fernet_key`, `secret_key` and `jwt_secret`."""
    return {
        "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "secret_key": secrets.token_hex(32),
        "jwt_secret": secrets.token_hex(32),
    }


def new_password() -> str:
    """Return a password of 24 letters and digits: 143 bits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(24))
