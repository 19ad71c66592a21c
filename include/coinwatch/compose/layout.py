"""Where the containers find what `prepare` made; docker-compose.yaml mounts it there."""

import socket
from pathlib import Path

AIRFLOW = Path("/run/coinwatch/airflow")
"""Secrets of every Airflow service."""

INIT = Path("/run/coinwatch/init")
"""Secrets that only `init` needs."""

POSTGRES = Path("/run/coinwatch/postgres")
"""The superuser's password."""

REDIS = Path("/run/coinwatch/redis")
"""The configuration of Redis, with its password."""

KEPT = Path("/run/coinwatch/kept")
"""All secrets; nobody but `prepare` has this volume."""

DATA = Path("/opt/airflow/data")
"""The project's data folder."""

AWS = Path("/home/airflow/.aws")
"""The `~/.aws` of whoever started the stack."""

SANDBOX_HOST = "sandbox.coinwatch.internal"
"""Where the sandbox's services answer; a name that no network around the stack has."""

REDIS_HOST = "redis.coinwatch.internal"
"""Likewise."""

SANDBOX_PORTS = {"CoinGecko": 8481, "Slack": 8482, "S3": 8483}

SANDBOX_DATA = DATA / "sandbox-compose"
"""The sandbox's data folder: not that of `make run`, which belongs to somebody else."""

AIRFLOW_USER, AIRFLOW_GROUP = 50000, 0
"""Whom the image apache/airflow runs as."""


def database(of: str, *, sandbox: bool) -> str:
    """The name of a database; what is simulated and what is real never share one.

    Args:
        of: ``airflow`` or ``warehouse``.
        sandbox: Whether the stack runs in the sandbox.
    """
    return f"{of}_sandbox" if sandbox else of


def is_there(host: str) -> bool:
    """Whether a service of the stack has been started: only then its name leads anywhere."""
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True
