"""An S3 on loopback, empty for each test, used through the real client; and rows of the warehouse."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

BUCKET = "coinwatch"


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    """Where the server is."""
    from coinwatch.sandbox.s3 import S3Sandbox

    with S3Sandbox(BUCKET) as sandbox:
        yield sandbox.url


@pytest.fixture
def open_s3_client() -> Iterator[Callable[[str], Any]]:
    """Open a boto3 client of an endpoint; it gives up at once where the real one would be patient."""
    import boto3
    from botocore.config import Config

    clients = []

    def open_client(url: str) -> Any:
        config = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=5)
        keys = {"aws_access_key_id": "sandbox", "aws_secret_access_key": "sandbox"}
        clients.append(boto3.client("s3", endpoint_url=url, region_name="us-east-1", config=config, **keys))
        return clients[-1]

    yield open_client
    for client in clients:
        client.close()


@pytest.fixture
def s3_client(s3_url: str, open_s3_client: Callable[[str], Any]) -> Any:
    """A client of the server, which has one empty bucket, ``coinwatch``."""
    from moto.backends import get_backend
    from moto.core.models import DEFAULT_ACCOUNT_ID

    # What moto keeps is one for the whole process.
    get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"].reset()
    client = open_s3_client(s3_url)
    client.create_bucket(Bucket=BUCKET)
    return client


@pytest.fixture
def incident_row(noon: datetime) -> Callable[..., dict[str, Any]]:
    """Make a row of ``incidents``: (id, values by column)."""
    from coinwatch.warehouse.schema import UtcTime, incidents

    required = {c.name: noon if isinstance(c.type, UtcTime) else -0.1 for c in incidents.c if not c.nullable}
    usual = {"coin": "bitcoin", "currency": "usd", "rule": "move_1h", "state": "firing"}
    nothing = {c.name: None for c in incidents.c if c.nullable}
    return lambda incident_id, **values: {**required, **nothing, **usual, "id": incident_id, **values}


@pytest.fixture
def alert_row(noon: datetime) -> Callable[..., dict[str, Any]]:
    """Make a row of ``alerts`` of noon: (id, values by column)."""
    usual = {"coin": "bitcoin", "currency": "usd", "rule": "move_1h", "severity": "warning", "state": "firing"}
    usual |= {"value": -3.0, "threshold": -2.0, "run_id": "r", "delivery": "pending"}
    times = {"ts": noon, "raised_at": noon}
    return lambda name, **values: {"id": name, "message": f"BTC moved, {name}", **usual, **times, **values}


@pytest.fixture
def silence(warehouse: Any, noon: datetime) -> Callable[[str, str, datetime], None]:
    """Store a silence: (coin, rule, until)."""
    from coinwatch.warehouse.schema import silences

    def silence(coin: str, rule: str, until: datetime) -> None:
        row = {"id": f"{coin}-{rule}", "coin": coin, "rule": rule, "until": until, "reason": "upgrade"}
        with warehouse.begin() as connection:
            connection.execute(silences.insert(), [row | {"created_at": noon}])

    return silence


@pytest.fixture
def report(warehouse: Any, noon: datetime) -> Callable[..., None]:
    """Report a pipeline issue: (key, time)."""
    from coinwatch.health import issues

    def report(key: str = "uploads", at: datetime = noon) -> None:
        with warehouse.begin() as connection:
            issues.report(connection, key, title="t", detail="d", action="a", at=at)

    return report
