"""The pipeline on the sandbox's services, with a clock that tests set."""

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID
from slack_sdk.webhook import WebhookClient
from sqlalchemy import Engine, event, select

from coinwatch.alerts.incidents import detect_anomalies
from coinwatch.app import App as _App
from coinwatch.coingecko.client import CoinGeckoClient
from coinwatch.coingecko.requests import RequestMeter
from coinwatch.ingest.gaps import find_gaps
from coinwatch.ingest.history import append_history, fetch_history, plan_history
from coinwatch.ingest.poll import append_raw_log, fetch_prices
from coinwatch.s3.store import S3Store
from coinwatch.s3.uploads import upload_to_s3
from coinwatch.sandbox.coingecko import CoinGeckoSandbox
from coinwatch.sandbox.market import SimulatedMarket
from coinwatch.sandbox.s3 import ACCESS_KEY, REGION, SECRET_KEY, S3Sandbox
from coinwatch.sandbox.slack import SlackSandbox
from coinwatch.settings import Settings, load_settings
from coinwatch.slack.deliver import send_slack_alerts
from coinwatch.slack.webhook import Slack, Webhook
from coinwatch.statistics.compute import compute_rolling_statistics
from coinwatch.statistics.processed_csv import export_processed_csv
from coinwatch.warehouse.engine import open_warehouse
from coinwatch.warehouse.load import load_raw_prices
from coinwatch.warehouse.schema import metadata

BUCKET = "prices"


@event.listens_for(Engine, "connect")
def _do_not_wait_for_the_disk(connection, _record) -> None:
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


SILENT = logging.getLogger("slack_sdk of the tests")
SILENT.setLevel(logging.CRITICAL + 1)


@dataclass
class Clock:
    """A clock that stands where it was set."""

    now: datetime = field(default=datetime(2026, 11, 22, 12, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.now


class App(_App):
    """The app with the sandbox's prices and a URL for links."""

    simulated = True
    airflow_url = "http://airflow"

    def task_states(self, *_task: str) -> dict:
        """No run of any task."""
        return {}


class WorldApp(App):
    """The app of a world; its S3 client, which takes longest, is made at first use."""

    def __init__(self, world: "World", **replaced) -> None:
        super().__init__(world.settings, world.clock)
        self._world = world
        self.__dict__ |= {"client": world.client(), "warehouse": world.warehouse(), "slack": world.channels()}
        self.__dict__ |= replaced

    @cached_property
    def s3(self) -> S3Store:
        return self._world.store()


@dataclass
class World:
    """Everything around the pipeline, and new collaborators for each step, as each task has its own."""

    clock: Clock
    settings: Settings
    coingecko: CoinGeckoSandbox
    slack: SlackSandbox
    s3: S3Sandbox
    warehouse_url: str
    new_warehouse_url: Callable[[str], str]
    waits: list[float] = field(default_factory=list)
    _opened: list = field(default_factory=list)

    def client(self) -> CoinGeckoClient:
        """A new client, whose waits are noted and not waited for."""
        meter = RequestMeter(
            self.warehouse, clock=self.clock, sleep=self.waits.append, per_minute=30, monthly_limit=10_000
        )
        return CoinGeckoClient(self.coingecko.url, clock=self.clock, meter=meter, api_key="secret-key", timeout=(1, 2))

    def app(self, **replaced) -> App:
        """A new app; ``replaced`` are properties to replace, such as ``s3=None``."""
        return WorldApp(self, **replaced)

    def warehouse(self) -> Engine:
        warehouse = open_warehouse(self.warehouse_url)
        self._opened.append(warehouse)
        return warehouse

    def close(self) -> None:
        for warehouse in self._opened:
            warehouse.dispose()

    def channels(self) -> Slack:
        """Slack with one webhook; nobody waits for it."""
        webhook = WebhookClient(f"{self.slack.url}/T/B/x", retry_handlers=[], logger=SILENT)
        return Slack(Webhook("slack_default", webhook), sleep=lambda _: None)

    def without_coingecko(self, unused_port: int) -> "World":
        """The same world while nobody listens where CoinGecko was."""
        return replace(self, coingecko=SimpleNamespace(url=f"http://127.0.0.1:{unused_port}/api/v3"))

    def s3_client(self):
        return boto3.client(
            "s3",
            endpoint_url=self.s3.url,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )

    def store(self) -> S3Store:
        return S3Store(self.s3_client(), BUCKET, self.settings.s3_prefix)

    def beside(self, name: str) -> "World":
        """The same services, with data of its own."""
        settings = self.settings.model_copy(
            update={"data_dir": self.settings.data_dir.with_name(name), "s3_prefix": name}
        )
        return replace(self, settings=settings, warehouse_url=self.new_warehouse_url(name))

    def ingest_steps(self, as_of: datetime) -> list[Callable[[], object]]:
        """The tasks of ingest_prices, and those of heal_history, each with what it reads from the ones before."""
        names: list[str] = []
        return [
            lambda: names.extend(fetch_prices(self.app(), as_of)),
            lambda: append_raw_log(self.app(), names),
            lambda: find_gaps(self.app(), as_of),
            *self.heal_steps(as_of),
        ]

    def heal_steps(self, as_of: datetime, **params: str) -> list[Callable[[], object]]:
        """The tasks of heal_history."""
        chunks: list[list[dict[str, str]]] = []
        return [
            lambda: chunks.extend(plan_history(self.app(), as_of, params)),
            lambda: [fetch_history(self.app(), as_of, windows) for windows in chunks],
            lambda: append_history(self.app(), as_of, chunks),
        ]

    def process_steps(self) -> list[Callable[[], object]]:
        """The tasks of process_prices, in order."""
        return [
            lambda: load_raw_prices(self.app()),
            lambda: compute_rolling_statistics(self.app()),
            lambda: detect_anomalies(self.app(), "run"),
            lambda: send_slack_alerts(self.app()),
            lambda: export_processed_csv(self.app()),
            lambda: upload_to_s3(self.app()),
        ]

    def run(self, as_of: datetime | None = None) -> None:
        """One hour, all the way through."""
        for step in [*self.ingest_steps(as_of or self.clock.now), *self.process_steps()]:
            step()

    def objects(self, below: str = "") -> dict[str, bytes]:
        """All that S3 has of this world, by key without the prefix."""
        prefix = f"{self.settings.s3_prefix}/" if self.settings.s3_prefix else ""
        # Not over HTTP, which takes a second for the objects of three days.
        kept = get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKET].keys
        found = {key: kept[key].value for key in sorted(kept) if key.startswith(prefix + below)}
        return {key.removeprefix(prefix): content for key, content in found.items()}

    def files(self) -> dict[str, bytes]:
        """All that lies in the data folder but the database."""
        folder = self.settings.data_dir
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and not path.name.startswith("warehouse.db")
        }

    def tables(self) -> dict[str, list]:
        """All that the warehouse has, by table, without the prefix in the name of a position."""
        prefix = f":{self.settings.s3_prefix}/"
        warehouse = self.warehouse()
        with warehouse.begin() as connection:
            return {
                table.name: sorted(str(row).replace(prefix, ":") for row in connection.execute(table.select()))
                for table in metadata.sorted_tables
                if table.name != "s3_objects"
            }

    def rows(self, table: str, *columns: str) -> list:
        """Some columns of a table, in the order of its key."""
        chosen = metadata.tables[table]
        with self.warehouse().begin() as connection:
            query = select(*(chosen.c[column] for column in columns)).order_by(*chosen.primary_key)
            return connection.execute(query).all()


@pytest.fixture
def clock() -> Clock:
    """Noon of the day; tests move it."""
    return Clock()


@pytest.fixture
def world_warehouse_url(tmp_path: Path, new_sqlite: Callable[[Path], str]) -> Callable[[str], str]:
    """The warehouse of a world by its folder's name; a test module may put ``new_warehouse_url`` in its place."""
    return lambda name: new_sqlite(tmp_path / name / "warehouse.db")


@contextmanager
def worlds(folder: Path, clock: Clock, warehouse_url: Callable[[str], str]) -> Iterator[Callable[..., World]]:
    """Make worlds: (folder name, settings by field) → World. The market falls a minute before noon."""
    with ExitStack() as services:

        def make(name: str = "world", market=None, **settings) -> World:
            market = market or SimulatedMarket(clock.now - timedelta(minutes=1))
            world = World(
                clock,
                load_settings(data_dir=folder / name, **{"history_days": 3, **settings}),
                services.enter_context(CoinGeckoSandbox(market, clock=clock)),
                services.enter_context(SlackSandbox(clock=clock)),
                services.enter_context(S3Sandbox(BUCKET)),
                warehouse_url(name),
                warehouse_url,
            )
            services.callback(world.close)
            return world

        yield make


@pytest.fixture
def make_world(
    tmp_path: Path, clock: Clock, world_warehouse_url: Callable[[str], str]
) -> Iterator[Callable[..., World]]:
    """Make worlds for a test."""
    with worlds(tmp_path, clock, world_warehouse_url) as make:
        yield make


@pytest.fixture
def world(make_world) -> World:
    """The usual world: Bitcoin alone, and three days of history."""
    return make_world()
