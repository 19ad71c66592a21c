import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk import RetryAction

from coinwatch import tasks
from coinwatch.coingecko.response_errors import KeyRejected, RateLimited
from coinwatch.errors import CoinwatchError
from coinwatch.s3.store import S3Conflict
from coinwatch.sandbox.slack import SlackSandbox
from coinwatch.slack.webhook import WebhookRefused
from coinwatch.tasks import DEFAULT_ARGS, as_of_time, report_failure

POLICY = DEFAULT_ARGS["retry_policy"]


def test_the_retry_comes_after_the_time_that_was_asked_for():
    decision = POLICY.evaluate(RateLimited("slow down", retry_after=30.0), 1, 4)
    assert (decision.action, decision.retry_delay) == (RetryAction.RETRY, timedelta(seconds=31))


@pytest.mark.parametrize("error", [KeyRejected("key"), WebhookRefused("webhook"), S3Conflict("object")])
def test_what_an_operator_has_to_fix_is_not_retried(error):
    assert POLICY.evaluate(error, 1, 4).action is RetryAction.FAIL


@pytest.mark.parametrize("error", [CoinwatchError("down"), RateLimited("slow down"), OSError("disk")])
def test_everything_else_is_retried_after_the_tasks_own_delay(error):
    assert POLICY.evaluate(error, 1, 4).action is RetryAction.DEFAULT


@pytest.mark.parametrize(
    ("logical_date", "run_after", "as_of"),
    [
        pytest.param("2026-11-22T10:00:00+00:00", "2026-11-22T10:00:09+00:00", "2026-11-22T10:00:00Z", id="logical"),
        pytest.param(None, "2026-11-22T10:23:45.678+00:00", "2026-11-22T10:23:45Z", id="triggered"),
        pytest.param("2026-11-22T12:00:00+02:00", None, "2026-11-22T10:00:00Z", id="another zone"),
    ],
)
def test_the_as_of_time_of_a_run(monkeypatch, logical_date, run_after, as_of):
    times = {"logical_date": logical_date, "run_after": run_after}
    run = SimpleNamespace(**{name: datetime.fromisoformat(text) if text else None for name, text in times.items()})
    monkeypatch.setattr(tasks, "get_current_context", lambda: {"dag_run": run})
    assert (as_of_time(), as_of_time().tzinfo) == (datetime.fromisoformat(as_of), UTC)


@pytest.fixture
def fail(monkeypatch, tmp_path):
    """Let Airflow call back about a failed task."""
    monkeypatch.setenv("COINWATCH_DATA_DIR", str(tmp_path))
    task = SimpleNamespace(dag_id="ingest_prices", task_id="fetch_prices", map_index=-1, log_url="http://airflow/log")
    return lambda: report_failure({"ti": task, "exception": KeyRejected("the key is wrong")})


def test_operators_are_notified_of_a_failed_task(fail, monkeypatch):
    with SlackSandbox(clock=lambda: datetime.now(UTC)) as slack:
        connection = {"conn_type": "slackwebhook", "host": slack.url, "password": "T/B/x"}
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_DEFAULT", json.dumps(connection))
        fail()
        assert ["ingest_prices.fetch_prices" in message["payload"]["text"] for message in slack.messages] == [True]


@pytest.mark.parametrize(
    ("variable", "value", "error"),
    [
        pytest.param("COINWATCH_CURRENCY", "$", "SettingsError", id="settings"),
        pytest.param("AIRFLOW_CONN_SLACK_DEFAULT", '{"conn_type": "slackwebhook"}', "Airflow", id="connection"),
    ],
)
def test_an_error_of_the_callback_is_logged_without_its_text(fail, monkeypatch, caplog, variable, value, error):
    monkeypatch.setenv(variable, value)
    fail()
    assert f"operators are not notified of the failed task: {error}" in caplog.text
    assert value not in caplog.text
