"""New secrets for an Airflow; the caller keeps them."""

import base64
import secrets
import string


def new_airflow_secrets() -> dict[str, str]:
    """Return a new ``FERNET_KEY``, ``SECRET_KEY`` and ``JWT_SECRET``."""
    return {
        "FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "SECRET_KEY": secrets.token_hex(32),
        "JWT_SECRET": secrets.token_hex(32),
    }


def new_password() -> str:
    """Return a password of 24 letters and digits (143 bits)."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(24))
