"""The environment of Airflow on this machine: what of the user's own may reach it."""

from collections.abc import Mapping

_LIVE_KEPT = ("AIRFLOW_CONN_", "AIRFLOW_VAR_", "AIRFLOW__SECRETS__")

_SANDBOX_DROPPED = (*_LIVE_KEPT, "AWS_", "BITCOIN_", "COINWATCH_HEARTBEAT_URL", "COINWATCH_S3_")

NO_AWS = {
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""There is no AWS account for the sandbox, whatever this machine has."""


def sandbox_environment(environ: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    """The environment without all that could lead to a real service or to real data.

    Args:
        environ: The user's.
        values: What holds in the sandbox.
    """
    kept = {name: value for name, value in environ.items() if not name.startswith(_SANDBOX_DROPPED)}
    return kept | NO_AWS | dict(values)


def airflow_environment(environ: Mapping[str, str], home: str) -> dict[str, str]:
    """The environment for an Airflow that is configured by the ``airflow.cfg`` in its home, and by nothing else.

    Connections, variables and the secrets backend may come from the user.

    Args:
        environ: The user's.
        home: AIRFLOW_HOME.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(("AIRFLOW_", "_AIRFLOW_")) or name.startswith(_LIVE_KEPT)
    }
    kept["AIRFLOW_HOME"] = home
    # Airflow's parts talk to each other on loopback; a proxy cannot reach them there.
    no_proxy = environ.get("no_proxy") or environ.get("NO_PROXY")
    kept["no_proxy"] = kept["NO_PROXY"] = f"{no_proxy},127.0.0.1,localhost" if no_proxy else "127.0.0.1,localhost"
    return kept
