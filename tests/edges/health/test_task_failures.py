from datetime import timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from coinwatch.coingecko.response_errors import KeyRejected
from coinwatch.health import issues
from coinwatch.health.task_failures import explain, report_failure, resolve_succeeded
from coinwatch.s3.store import S3Error
from coinwatch.slack.webhook import SlackError

HOUR = timedelta(hours=1)
RUN = "asset_triggered__2026-11-22T11:59:00.123456+00:00_x7"
LINK = (
    "http://airflow/dags/process_prices/runs/asset_triggered__2026-11-22T11%3A59%3A00.123456%2B00%3A00_x7/tasks/upload"
)


@pytest.fixture
def fail(world):
    """Report a failure of a task; ``replaced`` are properties of the app."""

    def fail(error=None, task="process_prices.upload_to_s3", **replaced):
        dag_id, _, task_id = task.partition(".")
        ti = SimpleNamespace(dag_id=dag_id, task_id=task_id, map_index=3, log_url=LINK)
        report_failure(world.app(**replaced), {"ti": ti, "exception": error or S3Error("S3 cannot be reached")})

    return fail


@pytest.fixture
def stored(world):
    return lambda: world.rows("pipeline_issues", "key", "state", "detail", "link")


@pytest.fixture
def check(world):
    """Check failed tasks at a time while Airflow has some states by run, and return the open issues."""

    def check(runs, now):
        asked = []
        app = world.app(task_states=lambda *task: asked.append(task) or runs)
        resolve_succeeded(app, now)
        assert asked in ([], [("process_prices", "upload_to_s3")])
        with app.warehouse.begin() as connection:
            return [row.key for row in issues.open_issues(connection)]

    return check


KEY = "task:process_prices.upload_to_s3"


def test_a_failure_is_one_issue_however_often_it_fails_and_operators_are_notified_at_once(world, fail, stored):
    fail()
    world.clock.now += HOUR
    fail()
    assert stored() == [(KEY, "open", "S3Error: S3 cannot be reached", LINK)]
    assert len(world.slack.messages) == 1


@pytest.fixture
def unavailable(tmp_path):
    """A warehouse in a folder that does not exist, and the error of its driver."""
    engine = create_engine(f"sqlite:///{tmp_path}/none/w.db")
    with pytest.raises(OperationalError) as error:
        engine.connect()
    return engine, error.value


def test_without_a_warehouse_a_failure_is_posted_directly_and_watch_feed_posts_once(world, fail, unavailable, caplog):
    warehouse, error = unavailable
    fail(warehouse=warehouse)
    fail(error, "watch_feed.check_feed", warehouse=warehouse)
    fail(error, "watch_feed.write_heartbeat", warehouse=warehouse)
    assert len(world.slack.messages) == 2
    fail(OSError(28, "No space left on device"), "watch_feed.write_heartbeat", warehouse=warehouse)
    assert len(world.slack.messages) == 3, "check_feed does not fail for this reason"
    world.slack.answer_next(503, "")
    fail(warehouse=warehouse)
    assert "warehouse unavailable (OperationalError): process_prices.upload_to_s3 is" in caplog.text


def test_that_slack_is_down_is_no_failed_task_and_a_revoked_webhook_has_its_own_issue(world, fail, stored):
    fail(SlackError("HTTP 503"))
    assert stored() == [("undelivered", "open", "SlackError: HTTP 503", LINK)]
    revoked = f"webhook:slack_default:{world.channels().alerts.fingerprint}"
    with world.warehouse().begin() as connection:
        issues.resolve(connection, "undelivered", world.clock.now)
        issues.report(connection, revoked, title="t", detail="d", action="a", at=world.clock.now)
    fail(SlackError("HTTP 410"))
    assert {(key, state) for key, state, *_ in stored()} == {("undelivered", "resolved"), (revoked, "open")}


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
def test_a_later_success_resolves_it_and_after_two_days_it_is_forgotten(world, fail, check, runs, is_open):
    fail()
    assert check(runs, world.clock.now + 47 * HOUR) == [KEY] * is_open
    assert check(runs, world.clock.now + 48 * HOUR) == []


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
def test_the_detail_has_the_text_of_our_errors_and_the_class_of_others(error, detail):
    assert explain(error)[0] == detail
