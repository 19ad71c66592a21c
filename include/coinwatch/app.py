"""What the steps work with: settings, clock, rules, and a client for each service, created at first use."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from airflow.sdk import Connection, get_current_context
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowNotFoundException

from coinwatch import settings as s
from coinwatch.errors import CoinwatchError
from coinwatch.settings import Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from coinwatch.archive.snapshots import Archive
    from coinwatch.coingecko.client import CoinGeckoClient, Plan
    from coinwatch.rules import RuleBook
    from coinwatch.s3.store import S3Store
    from coinwatch.slack.webhook import Slack

log = logging.getLogger(__name__)

COINGECKO_URL = "https://api.coingecko.com/api/v3"
"""Used without a connection, or with one that has no host."""


class ConnectionProblem(CoinwatchError):
    """A connection has a wrong value."""

    retryable = False


def utc_now() -> datetime:
    """Return the present, for ``App.clock``."""
    return datetime.now(UTC)


def find_connection(conn_id: str) -> Any | None:
    """Return an Airflow connection, or None if there is none with this id."""
    try:
        return Connection.get(conn_id)
    except AirflowNotFoundException:
        return None


class App:
    """Everything a step works with; clients are created at first use, from Airflow's connections.

    Attributes:
        settings: The environment's settings.
        clock: Returns the present.
    """

    def __init__(self, settings: Settings | None = None, clock: Callable[[], datetime] = utc_now) -> None:
        self.settings = settings or load_settings()
        self.clock = clock

    @cached_property
    def rules(self) -> "RuleBook":
        """The alert rules."""
        from coinwatch.rules import load_rules

        return load_rules(self.settings.config)

    @cached_property
    def archive(self) -> "Archive":
        """The snapshots."""
        from coinwatch.archive.snapshots import Archive

        return Archive(self.settings.archive_path)

    @cached_property
    def client(self) -> "CoinGeckoClient":
        """The CoinGecko client, with the host and the key of ``coingecko_default``; keyless without it."""
        from coinwatch.coingecko.client import PER_MINUTE, PER_MONTH, CoinGeckoClient
        from coinwatch.coingecko.requests import RequestMeter

        connection = find_connection(s.COINGECKO_CONN_ID)
        plan = coingecko_plan(connection)
        meter = RequestMeter(
            lambda: self.warehouse,
            clock=self.clock,
            sleep=time.sleep,
            per_minute=self.settings.coingecko_per_minute or PER_MINUTE[plan],
            monthly_limit=self.settings.coingecko_monthly_limit or PER_MONTH.get(plan),
        )
        if connection is None:
            log.info("no connection %s: using CoinGecko's keyless API", s.COINGECKO_CONN_ID)
            return CoinGeckoClient(COINGECKO_URL, clock=self.clock, meter=meter)
        key = connection.password or ""
        return CoinGeckoClient(base_url(connection), clock=self.clock, meter=meter, api_key=key, plan=plan)

    @cached_property
    def warehouse(self) -> "Engine":
        """The database of ``warehouse_default``, migrated; without it ``warehouse.db`` in the data folder."""
        from coinwatch.warehouse.engine import open_warehouse

        return open_warehouse(self.warehouse_url)

    @property
    def warehouse_url(self) -> str:
        """The SQLAlchemy URL of the warehouse, with its password."""
        connection = find_connection(s.WAREHOUSE_CONN_ID)
        if connection is None:
            return f"sqlite:///{self.settings.data_dir / 'warehouse.db'}"
        if connection.conn_type == "postgres":
            from airflow.providers.postgres.hooks.postgres import PostgresHook

            url: str = PostgresHook(s.WAREHOUSE_CONN_ID).sqlalchemy_url.render_as_string(hide_password=False)
            return url
        if connection.conn_type != "sqlite":
            raise ConnectionProblem(
                f"connection {s.WAREHOUSE_CONN_ID} has type {connection.conn_type!r}; allowed are postgres and sqlite"
            )
        # Airflow parses the path of sqlite:////folder/file as the schema; in the UI it is typed as the host.
        path = connection.host or connection.schema
        if not path:
            raise ConnectionProblem(f"connection {s.WAREHOUSE_CONN_ID}: set its host to the path of the SQLite file")
        return f"sqlite:///{path}"

    @cached_property
    def slack(self) -> "Slack":
        """The webhooks and the upload of charts that are configured."""
        from coinwatch.slack.webhook import Slack, open_webhook

        alerts, failures = (
            open_webhook(conn_id) if find_connection(conn_id) else None
            for conn_id in (s.SLACK_CONN_ID, s.FAILURES_CONN_ID)
        )
        return Slack(alerts, failures, _chart_upload())

    @cached_property
    def s3(self) -> "S3Store | None":
        """The bucket of the settings, with the credentials of ``aws_default``; None without a bucket."""
        if not self.settings.s3_bucket:
            return None
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook
        from botocore.config import Config

        from coinwatch.s3.store import S3Store

        # With boto3's defaults an unreachable endpoint blocks each upload for minutes.
        config = Config(connect_timeout=10, read_timeout=30, retries={"total_max_attempts": 3})
        wanted = S3Hook(aws_conn_id=s.AWS_CONN_ID).conn_config.botocore_config
        # The hook takes the connection's configuration or this one: merged, the connection's values win.
        client = S3Hook(aws_conn_id=s.AWS_CONN_ID, config=config.merge(wanted) if wanted else config).get_conn()
        return S3Store(client, self.settings.s3_bucket, self.settings.s3_prefix)

    @property
    def simulated(self) -> bool:
        """Whether the prices come from the sandbox."""
        connection = find_connection(s.COINGECKO_CONN_ID)
        return connection is not None and bool(connection.extra_dejson.get("simulated"))

    @property
    def airflow_url(self) -> str:
        """The URL of Airflow's UI, for links in messages."""
        return str(conf.get("api", "base_url", fallback="") or "http://localhost:8080").rstrip("/")

    def task_states(self, dag_id: str, task_id: str) -> dict[str, dict[str, str]]:
        """Return the states of a task by run id, for each of its instances; works inside a task only."""
        states: dict[str, dict[str, str]] = get_current_context()["ti"].get_task_states(dag_id, task_ids=[task_id])
        return states


def coingecko_plan(connection: Any | None) -> "Plan":
    """Return the plan of ``coingecko_default``: keyless, demo or pro."""
    if connection is None:
        return "keyless"
    plan = connection.extra_dejson.get("plan", "demo")
    if plan not in ("demo", "pro"):
        raise ConnectionProblem(
            f'connection {s.COINGECKO_CONN_ID}: "plan" in the extra is {plan!r}; allowed are demo and pro'
        )
    return cast("Plan", plan) if connection.password else "keyless"


def base_url(connection: Any) -> str:
    """Return the base URL of ``coingecko_default``; logs and messages show it, so it must not contain a key."""
    host = connection.host or COINGECKO_URL
    if "://" not in host or "@" in host or "?" in host or connection.schema or connection.port:
        raise ConnectionProblem(
            f"connection {connection.conn_id}: put the key into the password, and the whole base URL into the host, "
            f"for example {COINGECKO_URL}, with schema and port empty"
        )
    return str(host)


def _chart_upload() -> "Callable[[bytes, str], None] | None":
    from coinwatch.slack.webhook import open_chart_upload

    connection = find_connection(s.SLACK_API_CONN_ID)
    if connection is None:
        return None
    channel = str(connection.extra_dejson.get("channel") or "")
    if not channel or not connection.password:
        log.warning(
            "connection %s: charts need a bot token as the password and the id of the channel in the extra, for "
            'example {"channel": "C0123456789"}; notifications are sent without charts',
            s.SLACK_API_CONN_ID,
        )
        return None
    return open_chart_upload(channel)
