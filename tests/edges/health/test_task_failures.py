from datetime import UTC, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import create_engine, select

from coinwatch.coingecko.errors import KeyRejected
from coinwatch.health import issues
from coinwatch.health.task_failures import explain, report_failure, resolve_succeeded
from coinwatch.s3.store import S3Error
from coinwatch.slack.webhook import SlackError
from coinwatch.warehouse import schema

HOUR = timedelta(hours=1)
RUN = "asset_triggered__2026-11-22T11:59:00.123456+00:00_x7"
LINK = (
    "http://airflow/dags/process_prices/runs/asset_triggered__2026-11-22T11%3A59%3A00.123456%2B00%3A00_x7/tasks/upload"
)


@pytest.fixture
def fail(world):
    """Report a failure of a task: (error, other properties of the app)."""

    def fail(error=None, **replaced):
        task = SimpleNamespace(dag_id="process_prices", task_id="upload_to_s3", map_index=3, log_url=LINK)
        report_failure(world.app(**replaced), {"ti": task, "exception": error or S3Error("S3 cannot be reached")})

    return fail


@pytest.fixture
def stored(world):
    def stored():
        i = schema.pipeline_issues.c
        with world.warehouse().begin() as connection:
            return [tuple(row) for row in connection.execute(select(i.key, i.state, i.detail, i.link))]

    return stored


@pytest.fixture
def states(world):
    """Let Airflow answer with states by run: (states) → the issues that are open after a check."""

    def states(runs, now):
        asked = []

        def task_states(*task):
            asked.append(task)
            return runs

        app = world.app(task_states=task_states)
        resolve_succeeded(app, now)
        assert asked in ([], [("process_prices", "upload_to_s3")])
        with app.warehouse.begin() as connection:
            return [row.key for row in issues.open_issues(connection)]

    return states


KEY = "task:process_prices.upload_to_s3"


def test_a_failure_is_one_issue_however_often_it_fails_and_operators_are_notified_at_once(world, fail, stored):
    fail()
    world.clock.now += HOUR
    fail()
    assert stored() == [(KEY, "open", "S3Error: S3 cannot be reached", LINK)]
    assert len(world.slack.messages) == 1


def test_while_slack_is_down_the_issue_stays_due(world, fail):
    world.slack.answer_next(503, "")
    fail()
    with world.warehouse().begin() as connection:
        assert [row.key for row in issues.due(connection, world.clock.now)] == [KEY]


def test_without_a_warehouse_each_failure_is_posted_directly(world, fail, tmp_path, caplog):
    # A folder that does not exist: a real error of a real driver.
    unavailable = create_engine(f"sqlite:///{tmp_path}/none/w.db")
    fail(warehouse=unavailable)
    fail(warehouse=unavailable)
    assert len(world.slack.messages) == 2
    world.slack.answer_next(503, "")
    fail(warehouse=unavailable)
    assert "warehouse unavailable (OperationalError): process_prices.upload_to_s3 is" in caplog.text


def test_that_slack_is_down_is_no_failed_task_and_a_revoked_webhook_has_its_own_issue(world, fail, stored):
    fail(SlackError("HTTP 503"))
    assert stored() == [("undelivered", "open", "SlackError: HTTP 503", LINK)]
    with world.warehouse().begin() as connection:
        issues.resolve(connection, "undelivered", world.clock.now)
        issues.report(connection, "webhook:x", title="t", detail="d", action="a", at=world.clock.now)
    fail(SlackError("HTTP 410"))
    assert {(key, state) for key, state, *_ in stored()} == {("undelivered", "resolved"), ("webhook:x", "open")}


@pytest.mark.parametrize(
    ("runs", "is_open"),
    [
        pytest.param({}, True, id="no run"),
        pytest.param({"scheduled__2026-11-22T13:00:00+00:00": {"upload_to_s3": "success"}}, False, id="later"),
        pytest.param({"scheduled__2026-11-22T11:00:00+00:00": {"upload_to_s3": "success"}}, True, id="earlier"),
        pytest.param({"scheduled__2026-11-22T13:00:00+00:00": {"upload_to_s3": "failed"}}, True, id="failed again"),
        pytest.param({"by_hand": {"upload_to_s3": "success"}}, True, id="a run without a time"),
        pytest.param({RUN: {"upload_to_s3": "success"}}, False, id="cleared"),
        pytest.param({RUN: {"a_0": "success", "a_1": "failed"}}, True, id="one of the mapped tasks"),
        pytest.param({RUN: {"a_0": "success", "a_1": "success"}}, False, id="all of the mapped tasks"),
    ],
)
def test_a_later_success_resolves_it(world, fail, states, runs, is_open):
    fail()
    assert states(runs, world.clock.now + HOUR) == [KEY] * is_open


def test_a_task_that_does_not_run_any_more_is_forgotten(world, fail, states):
    fail()
    world.clock.now += HOUR
    fail()
    assert states({}, world.clock.now + 47 * HOUR) == [KEY]
    assert states({}, world.clock.now + 48 * HOUR) == []


def test_without_a_failed_task_airflow_is_not_asked(world, states):
    assert states({}, world.clock.now.astimezone(UTC)) == []


class Foreign(Exception):
    """An error of a library."""


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (KeyRejected("the key is wrong"), "KeyRejected: the key is wrong"),
        (S3Error("x" * 700), "S3Error: " + "x" * 600),
        (OSError(28, "No space left on device", "/data"), "OSError: No space left on device."),
        (Foreign("postgresql://user:secret@host"), "Foreign; see the task's log."),
        ("killed", "The task was stopped from outside; see the scheduler's log."),
    ],
)
def test_the_texts_of_libraries_are_not_repeated(error, detail):
    assert explain(error)[0] == detail


def test_what_to_do_depends_on_whether_a_retry_can_help():
    assert explain(S3Error("down"))[1] != explain(KeyRejected("wrong"))[1]
