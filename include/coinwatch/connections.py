"""Where Airflow's connections become the collaborators of the steps; called by tasks, never at parse."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow.sdk import Connection
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowNotFoundException

from coinwatch import settings as s
from coinwatch.errors import CoinwatchError
from coinwatch.settings import Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from coinwatch.alerting.delivery import Delivery, Slack
    from coinwatch.alerting.failures import Failures
    from coinwatch.alerting.pictures import Pictures
    from coinwatch.alerting.slack import Webhook
    from coinwatch.pipeline.ingest import Ingest
    from coinwatch.pipeline.operate import Operator
    from coinwatch.pipeline.process import Process
    from coinwatch.pipeline.review import Review
    from coinwatch.pipeline.watch import Watch
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
    warehouse = _warehouse_when_needed(settings)
    return Ingest(settings, open_coingecko(settings, warehouse), Archive(settings.archive_path), warehouse, utc_now)


def _warehouse_when_needed(settings: Settings) -> "Callable[[], Engine]":
    """The warehouse, opened at the first call: a price is archived even while the warehouse is down."""
    return cache(lambda: open_default_warehouse(settings))


def open_process() -> "Process":
    """What the steps of `process_prices` work with."""
    from coinwatch.pipeline.process import Process
    from coinwatch.rules import load_rules

    settings = load_settings()
    return Process(settings, open_default_warehouse(settings), load_rules(settings.config), utc_now)


def open_watch() -> "Watch":
    """What the steps of `watch_feed` work with."""
    from coinwatch.pipeline.watch import Watch
    from coinwatch.rules import load_rules

    settings = load_settings()
    rules = load_rules(settings.config)
    return Watch(settings, open_default_warehouse(settings), rules, utc_now, open_ingest().budget)


def open_review() -> "Review":
    """What the step of `review_quarantine` works with."""
    from coinwatch.pipeline.review import Review

    settings = load_settings()
    return Review(settings, open_default_warehouse(settings), utc_now)


def open_operator() -> "Operator":
    """What the steps of `manage_alerts` work with."""
    from coinwatch.pipeline.operate import Operator

    settings = load_settings()
    return Operator(settings, open_default_warehouse(settings), utc_now)


def open_coingecko(settings: Settings, warehouse: "Callable[[], Engine]") -> "CoinGeckoClient":
    """The client, with the key and the host of `coingecko_default`; keyless without that connection.

    Args:
        settings: What the environment decides.
        warehouse: Opens it, where requests are counted.

    Raises:
        ConnectionProblem: The connection's plan or host is none.
    """
    from coinwatch.sources.coingecko import PER_MINUTE, PER_MONTH, CoinGeckoClient
    from coinwatch.storage.requests import RequestMeter

    connection = find_connection(s.COINGECKO_CONN_ID)
    plan = coingecko_plan(connection)
    meter = RequestMeter(
        warehouse,
        clock=utc_now,
        sleep=time.sleep,
        per_minute=settings.coingecko_per_minute or PER_MINUTE[plan],
        monthly_limit=settings.coingecko_monthly_limit or PER_MONTH.get(plan),
    )
    if connection is None:
        log.info("no connection %s: CoinGecko is asked without a key", s.COINGECKO_CONN_ID)
        return CoinGeckoClient(COINGECKO_URL, clock=utc_now, meter=meter)
    return CoinGeckoClient(
        base_url(connection),
        clock=utc_now,
        meter=meter,
        api_key=connection.password or "",
        plan="pro" if plan == "pro" else "demo",
    )


def coingecko_plan(connection: Any | None) -> str:
    """The plan of `coingecko_default`: keyless, demo or pro.

    Raises:
        ConnectionProblem: It says another one.
    """
    if connection is None:
        return "keyless"
    plan = connection.extra_dejson.get("plan", "demo")
    if plan not in ("demo", "pro"):
        raise ConnectionProblem(
            f'connection {s.COINGECKO_CONN_ID}: "plan" in its extra is {plan!r}; allowed are demo and pro'
        )
    return str(plan) if connection.password else "keyless"


def base_url(connection: Any) -> str:
    """The base URL in an HTTP connection.

    Raises:
        ConnectionProblem: There is something else in it, or a secret.
    """
    host = connection.host or COINGECKO_URL
    if "@" in host or "?" in host:
        # Every log and message repeats the address.
        raise ConnectionProblem(
            f"connection {connection.conn_id}: its host has '@' or '?' in it; put the key into the password, and "
            f"nothing but the base URL into the host, for example {COINGECKO_URL}"
        )
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


def open_slack() -> "Slack":
    """The webhooks of `slack_default` and `slack_failures`, each if there is that connection."""
    from coinwatch.alerting.delivery import Slack

    return Slack(_open_webhook(s.SLACK_CONN_ID), _open_webhook(s.FAILURES_CONN_ID), _open_pictures())


def _open_pictures() -> "Pictures | None":
    from coinwatch.alerting.pictures import open_pictures

    connection = find_connection(s.SLACK_API_CONN_ID)
    if connection is None:
        return None
    channel = str(connection.extra_dejson.get("channel") or "")
    if not channel or not connection.password:
        log.warning(
            'connection %s: pictures need the bot token as its password and {"channel": "C0123456789"}, the id of the '
            "channel, in its extra; alerts come without",
            s.SLACK_API_CONN_ID,
        )
        return None
    return open_pictures(channel)


def open_delivery() -> "Delivery":
    """What delivers messages, with the warehouse open."""
    from coinwatch.alerting.delivery import delivery
    from coinwatch.rules import load_rules

    settings = load_settings()
    return delivery(
        settings,
        open_default_warehouse(settings),
        load_rules(settings.config),
        utc_now,
        open_slack(),
        airflow_url(),
        simulated=prices_are_simulated(),
    )


def open_failures() -> "Failures":
    """What is done about tasks that failed."""
    from coinwatch.alerting.failures import Failures

    return Failures(
        load_settings().data_dir / s.FAILED_TASKS, utc_now, open_delivery, open_slack, simulated=prices_are_simulated()
    )


def _open_webhook(conn_id: str) -> "Webhook | None":
    from coinwatch.alerting.slack import open_webhook

    return None if find_connection(conn_id) is None else open_webhook(conn_id)


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
