import logging
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from slack_sdk.webhook import WebhookClient
from sqlalchemy import create_engine, select

from coinwatch.coingecko.errors import KeyRejected
from coinwatch.health.task_failures import Failures, Mark, TaskRun, explain, forget
from coinwatch.rules import load_rules
from coinwatch.s3.store import S3Error
from coinwatch.sandbox.slack import SlackSandbox
from coinwatch.settings import load_settings
from coinwatch.slack.deliver import Slack, delivery
from coinwatch.slack.webhook import SlackError, WebhookDead
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import WarehouseError, open_warehouse

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
UPLOAD = TaskRun("process_prices", "upload_to_s3", "", "http://airflow/log")
LOST = S3Error("S3 cannot be reached")


class World:
    """The warehouse, which may be away, and a Slack."""

    def __init__(self, folder, url, slack):
        self.now = TEN
        self.folder = folder
        self.url = url
        self.slack = slack
        self.away = False

    def channels(self):
        silent = logging.getLogger("silent")
        silent.setLevel(logging.CRITICAL + 1)
        return Slack(WebhookClient(f"{self.slack.url}/T/B/x", retry_handlers=[], logger=silent), sleep=lambda _: None)

    def open_delivery(self):
        settings = load_settings(data_dir=self.folder)
        # A folder that is not there: a real error of a real driver.
        engine = create_engine(f"sqlite:///{self.folder}/none/w.db") if self.away else open_warehouse(self.url)
        rules = load_rules(settings.config)
        return delivery(settings, engine, rules, lambda: self.now, self.channels(), "http://airflow", simulated=False)

    def failures(self):
        folder = self.folder / "failed_tasks"
        return Failures(folder, lambda: self.now, self.open_delivery, self.channels, simulated=False)

    def failed(self, failure=LOST, run=UPLOAD):
        self.failures().failed(run, failure)
        self.now += HOUR

    def recovered(self, run=UPLOAD):
        self.failures().recovered(run)
        self.now += HOUR

    def texts(self):
        return [message["payload"]["text"] for message in self.slack.messages]

    def marks(self):
        return [path.name for path in (self.folder / "failed_tasks").glob("*.json")]


@pytest.fixture
def world(tmp_path, warehouse_url):
    with SlackSandbox(clock=lambda: TEN) as slack:
        yield World(tmp_path, warehouse_url, slack)


BEGAN = "Coinwatch itself: Task process_prices.upload_to_s3 fails (began)"
OVER = "Coinwatch itself: Task process_prices.upload_to_s3 fails (is over)"


def test_a_task_that_fails_by_the_hour_is_told_once_and_its_recovery_once(world):
    for _ in range(3):
        world.failed()
    world.recovered()
    world.recovered()
    assert world.texts() == [BEGAN, OVER]
    assert world.marks() == []
    said = [message["payload"]["blocks"][1]["text"]["text"].splitlines() for message in world.slack.messages]
    assert said == [
        [
            ":wrench: *Task process_prices.upload_to_s3 fails*: began",
            "S3Error: S3 cannot be reached",
            ("*What to do:* Nothing at once: later runs try again, and this is told to be over when one goes through."),
            "since 2026-11-22 10:00 UTC · <http://airflow/log|look>",
        ],
        [
            ":white_check_mark: *Task process_prices.upload_to_s3 fails*: is over",
            "It has gone through again. It was: S3Error: S3 cannot be reached",
            "since 2026-11-22 10:00 UTC, 3 h 0 min · <http://airflow/log|look>",
        ],
    ]


def test_it_may_fail_again_later(world):
    world.failed()
    world.recovered()
    world.failed()
    assert world.texts() == [BEGAN, OVER, BEGAN]


def test_a_task_that_never_failed_touches_nothing(world):
    world.away = True
    world.recovered()
    assert world.texts() == world.marks() == []


def test_each_of_the_mapped_tasks_is_told_of_by_its_name(world):
    one, other = (TaskRun("ingest_prices", "fetch_history", coin, None) for coin in ("bitcoin", "usd/coin"))
    world.failed(run=one)
    world.recovered(run=other)
    assert world.texts() == ["Coinwatch itself: Task ingest_prices.fetch_history[bitcoin] fails (began)"]
    world.failed(run=other)
    assert sorted(world.marks()) == [
        "task%3Aingest_prices.fetch_history%5Bbitcoin%5D.json",
        "task%3Aingest_prices.fetch_history%5Busd%2Fcoin%5D.json",
    ]
    forget(world.folder / "failed_tasks", other.key)
    assert len(world.marks()) == 1


def test_without_a_warehouse_slack_is_told_directly_and_once(world, caplog):
    world.away = True
    world.failed()
    world.failed()
    assert world.texts() == [BEGAN]
    assert "the warehouse cannot be told of it (OperationalError): S3Error: S3 cannot be reached" in caplog.messages
    world.recovered()
    assert (world.texts(), len(world.marks())) == ([BEGAN], 1)
    world.away = False
    world.recovered()
    assert (world.texts(), world.marks()) == ([BEGAN, OVER], [])


def test_a_warehouse_that_comes_back_while_the_task_still_fails_does_not_tell_it_again(world):
    world.away = True
    world.failed()
    world.away = False
    world.failed()
    world.recovered()
    assert world.texts() == [BEGAN, OVER]
    engine = open_warehouse(world.url)
    with engine.begin() as connection:
        [trouble] = connection.execute(select(schema.troubles)).all()
    engine.dispose()
    assert (trouble.since, trouble.state) == (TEN + HOUR, "over")


def test_without_warehouse_and_slack_it_is_logged_and_told_when_one_of_them_is_back(world, caplog):
    world.away = True
    world.slack.answer_next(503, "")
    world.failed()
    assert world.texts() == []
    assert "nor can slack_default: Slack answered 503 ''; the alerts are kept, and sent again later" in caplog.messages
    world.failed()
    assert world.texts() == [BEGAN]


def test_what_slack_does_not_take_waits(world, caplog):
    world.slack.answer_next(503, "")
    world.failed()
    assert "the operators could not be told now; it is tried again later" in caplog.text
    assert world.texts() == []
    world.recovered()
    assert world.texts() == [OVER]


def test_that_slack_does_not_answer_is_a_trouble_of_its_own_and_no_failed_task(world):
    world.failed(SlackError("Slack answered 503"))
    world.failed(WebhookDead("Slack answered 410"))
    assert world.marks() == []
    engine = open_warehouse(world.url)
    with engine.begin() as connection:
        assert [(row.key, row.what) for row in connection.execute(select(schema.troubles))] == [
            ("undelivered", "Slack answered 503")
        ]
    engine.dispose()


class Foreign(Exception):
    """Of another library."""


@pytest.mark.parametrize(
    ("failure", "said", "action"),
    [
        (
            KeyRejected("the key is wrong"),
            "KeyRejected: the key is wrong",
            "What the message says; then clear the task, ",
        ),
        (S3Error("x" * 700), "S3Error: " + "x" * 600, "Nothing at once: "),
        (WarehouseError("newer"), "WarehouseError: newer", "What the message says; then clear the task."),
        (OSError(28, "No space left on device", "/data"), "OSError: No space left on device.", "Read the task's log, "),
        (Foreign("postgresql://user:secret@host"), "Foreign; the task's log says more.", "Read the task's log, "),
        ("killed", "The task was ended from outside; the scheduler's log says more.", "Clear the task, "),
        (None, "The task was ended from outside; the scheduler's log says more.", "Clear the task, "),
    ],
)
def test_a_failure_is_explained_and_only_texts_of_ours_are_repeated(failure, said, action):
    what, todo = explain(failure)
    assert what == said
    assert todo.startswith(action)


@pytest.mark.parametrize(
    ("map_index", "rendered", "name"),
    [
        (-1, None, "ingest_prices.fetch_history"),
        (None, None, "ingest_prices.fetch_history"),
        (0, None, "ingest_prices.fetch_history[0]"),
        (3, "bitcoin", "ingest_prices.fetch_history[bitcoin]"),
    ],
)
def test_a_task_is_named_as_airflow_shows_it(map_index, rendered, name):
    task = SimpleNamespace(
        dag_id="ingest_prices", task_id="fetch_history", map_index=map_index, rendered_map_index=rendered, log_url="u"
    )
    assert (TaskRun.of({"ti": task}).name, TaskRun.of({"ti": task}).url) == (name, "u")


def test_a_file_that_is_no_mark_says_so(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"since": "2026-11-22T10:00:00Z", "told_at": null}')
    with pytest.raises(ValueError, match="is no mark of a failed task"):
        Mark.read(path)
