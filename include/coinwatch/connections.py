"""Where Airflow's connections become the collaborators of the steps; called by tasks, never at parse."""

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import Connection
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowNotFoundException

from coinwatch import settings as s
from coinwatch.errors import CoinwatchError
from coinwatch.settings import Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from coinwatch.alerting.slack import Webhook
    from coinwatch.pipeline.ingest import Ingest
    from coinwatch.pipeline.process import Process
    from coinwatch.sources.coingecko import CoinGeckoClient
    from coinwatch.storage.s3 import S3Store

log = logging.getLogger(__name__)

COINGECKO_URL = "https://api.coingecko.com/api/v3"
"""Keyless, when no connection says otherwise."""


class ConnectionProblem(CoinwatchError):
    """A connection is there, but not usable as it is."""

    retryable = False


def utc_now() -> datetime:
    """The clock of the tasks."""
    return datetime.now(UTC)


def find_connection(conn_id: str) -> Any | None:
    """A connection by its id, or none if nobody has made it."""
    try:
        return Connection.get(conn_id)
    except AirflowNotFoundException:
        return None


def open_ingest() -> "Ingest":
    """What the steps of `ingest_prices` work with."""
    from coinwatch.pipeline.ingest import Ingest
    from coinwatch.storage.archive import Archive

    settings = load_settings()
    return Ingest(settings, open_coingecko(), Archive(settings.archive_path), utc_now)


def open_process() -> "Process":
    """What the steps of `process_prices` work with."""
    from coinwatch.pipeline.process import Process
    from coinwatch.rules import load_rules

    settings = load_settings()
    return Process(settings, open_default_warehouse(settings), load_rules(settings.config), utc_now)


def open_coingecko() -> "CoinGeckoClient":
    """The client, with the key and the host of `coingecko_default`; keyless without that connection.

    Raises:
        ConnectionProblem: The connection's plan or host is none.
    """
    from coinwatch.sources.coingecko import KEY_HEADERS, CoinGeckoClient

    connection = find_connection(s.COINGECKO_CONN_ID)
    if connection is None:
        log.info("no connection %s: CoinGecko is asked without a key", s.COINGECKO_CONN_ID)
        return CoinGeckoClient(COINGECKO_URL, clock=utc_now)
    plan = connection.extra_dejson.get("plan", "demo")
    if plan not in KEY_HEADERS:
        raise ConnectionProblem(
            f'connection {s.COINGECKO_CONN_ID}: "plan" in its extra is {plan!r}; allowed are demo and pro'
        )
    return CoinGeckoClient(_base_url(connection), clock=utc_now, api_key=connection.password or "", plan=plan)


def _base_url(connection: Any) -> str:
    host = connection.host or COINGECKO_URL
    if "://" not in host:
        if connection.schema not in (None, "", "http", "https"):
            raise ConnectionProblem(
                f"connection {connection.conn_id}: its schema is {connection.schema!r}; put the whole base URL into "
                f"the host, for example {COINGECKO_URL}"
            )
        host = f"{connection.schema or 'https'}://{host}"
    if connection.port:
        scheme, _, rest = host.partition("://")
        name, slash, path = rest.partition("/")
        host = f"{scheme}://{name}:{connection.port}{slash}{path}"
    return str(host)


def prices_are_simulated() -> bool:
    """Whether the prices come from the sandbox: its connection says so, and every message has to."""
    connection = find_connection(s.COINGECKO_CONN_ID)
    return connection is not None and bool(connection.extra_dejson.get("simulated"))


def as_of_time(dag_run: Any) -> datetime:
    """A run's as-of time, which names everything that the run writes (contract, section 4)."""
    moment: datetime = dag_run.logical_date or dag_run.run_after
    return moment.astimezone(UTC).replace(microsecond=0)


def open_default_warehouse(settings: Settings) -> "Engine":
    """The warehouse of `warehouse_default`; without that connection an SQLite file in the data folder.

    Raises:
        ConnectionProblem: The connection is of another type.
    """
    from coinwatch.storage.warehouse import open_warehouse

    connection = find_connection(s.WAREHOUSE_CONN_ID)
    if connection is None:
        return open_warehouse(f"sqlite:///{settings.data_dir / 'warehouse.db'}")
    if connection.conn_type == "postgres":
        from airflow.providers.postgres.hooks.postgres import PostgresHook

        return open_warehouse(PostgresHook(s.WAREHOUSE_CONN_ID).sqlalchemy_url.render_as_string(hide_password=False))
    if connection.conn_type == "sqlite":
        return open_warehouse(f"sqlite:///{_sqlite_path(connection)}")
    raise ConnectionProblem(
        f"connection {s.WAREHOUSE_CONN_ID} is of type {connection.conn_type!r}; allowed are postgres and sqlite"
    )


def _sqlite_path(connection: Any) -> str:
    # Airflow reads sqlite:////folder/file into the schema; a connection from the form has the path as its host.
    path = connection.host or connection.schema
    if not path:
        raise ConnectionProblem(f"connection {s.WAREHOUSE_CONN_ID}: its host has to be the path of the SQLite file")
    return str(path)


def open_slack() -> "Webhook | None":
    """The webhook of `slack_default`; none without that connection."""
    from coinwatch.alerting.slack import open_webhook

    return None if find_connection(s.SLACK_CONN_ID) is None else open_webhook()


def open_s3() -> "S3Store | None":
    """The bucket of the settings, with the credentials of `aws_default`; none without a bucket."""
    settings = load_settings()
    if not settings.s3_bucket:
        return None
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from botocore.config import Config

    from coinwatch.storage.s3 import S3Store

    # By default an endpoint that cannot be reached holds each upload for minutes.
    config = Config(connect_timeout=10, read_timeout=30, retries={"total_max_attempts": 3})
    wanted = S3Hook(aws_conn_id=s.AWS_CONN_ID).conn_config.botocore_config
    # The hook takes one or the other: what the connection asks for goes before ours.
    client = S3Hook(aws_conn_id=s.AWS_CONN_ID, config=config.merge(wanted) if wanted else config).get_conn()
    return S3Store(client, settings.s3_bucket, settings.s3_prefix)


def airflow_url() -> str:
    """Where Airflow's pages are, as people reach them."""
    return str(conf.get("api", "base_url", fallback="") or "http://localhost:8080")
