import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk import RetryAction

from coinwatch.coingecko.errors import KeyRejected, RateLimited
from coinwatch.errors import CoinwatchError
from coinwatch.s3.store import S3Conflict
from coinwatch.sandbox.slack import SlackSandbox
from coinwatch.slack.webhook import WebhookRefused
from coinwatch.tasks import DEFAULT_ARGS, note_failure, note_success

POLICY = DEFAULT_ARGS["retry_policy"]


@pytest.fixture
def slack(monkeypatch):
    with SlackSandbox(clock=lambda: datetime.now(UTC)) as sandbox:
        connection = {"conn_type": "slackwebhook", "host": sandbox.url, "password": "T/B/x"}
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_DEFAULT", json.dumps(connection))
        yield sandbox


@pytest.fixture(autouse=True)
def warehouse_of_settings(monkeypatch, tmp_path):
    """The file that is the warehouse, once it is opened."""
    monkeypatch.setenv("COINWATCH_DATA_DIR", str(tmp_path))
    return tmp_path / "warehouse.db"


def call_back(callback, **context):
    """As Airflow does it at the end of a task."""
    task = SimpleNamespace(dag_id="ingest_prices", task_id="fetch_prices", map_index=-1, log_url="http://airflow/log")
    callback({"ti": task, **context})


def test_the_wait_that_was_asked_for_becomes_the_delay_of_the_retry():
    decision = POLICY.evaluate(RateLimited("slow down", retry_after=30.0), 1, 4)
    assert (decision.action, decision.retry_delay) == (RetryAction.RETRY, timedelta(seconds=31))


@pytest.mark.parametrize("failure", [KeyRejected("key"), WebhookRefused("webhook"), S3Conflict("object")])
def test_what_somebody_has_to_mend_fails_at_once(failure):
    assert POLICY.evaluate(failure, 1, 4).action is RetryAction.FAIL


@pytest.mark.parametrize("failure", [CoinwatchError("out of order"), RateLimited("slow down"), OSError("disk")])
def test_everything_else_is_tried_again_after_the_tasks_own_delay(failure):
    assert POLICY.evaluate(failure, 1, 4).action is RetryAction.DEFAULT


def test_a_failed_task_is_told_of_and_its_recovery_too(slack, warehouse_of_settings):
    call_back(note_failure, exception=KeyRejected("the key is wrong"))
    call_back(note_success)
    assert [message["payload"]["text"] for message in slack.messages] == [
        "Coinwatch itself: Task ingest_prices.fetch_prices fails (began)",
        "Coinwatch itself: Task ingest_prices.fetch_prices fails (is over)",
    ]
    assert warehouse_of_settings.exists()


def test_a_success_without_a_failure_before_opens_nothing(warehouse_of_settings):
    call_back(note_success)
    assert not warehouse_of_settings.exists()


@pytest.mark.parametrize("callback", [note_failure, note_success])
def test_what_goes_wrong_while_telling_never_reaches_the_task_and_tells_no_secret(tmp_path, caplog, callback):
    mark = tmp_path / "failed_tasks" / "task%3Aingest_prices.fetch_prices.json"
    mark.parent.mkdir()
    mark.write_text("secret")
    call_back(callback, exception=KeyRejected("the key is wrong"))
    assert caplog.messages == ["the operators were not told what became of the task: JSONDecodeError"]


@pytest.mark.parametrize("callback", [note_failure, note_success])
def test_wrong_settings_do_not_reach_the_task_either(monkeypatch, caplog, callback):
    monkeypatch.setenv("COINWATCH_CURRENCY", "$")
    call_back(callback, exception=KeyRejected("the key is wrong"))
    assert caplog.messages == ["the operators were not told what became of the task: SettingsError"]
