from datetime import timedelta

import pytest
from airflow.sdk import RetryAction

from coinwatch.alerting.slack import WebhookRefused
from coinwatch.defaults import DEFAULT_ARGS
from coinwatch.errors import CoinwatchError
from coinwatch.sources.errors import KeyRejected, RateLimited
from coinwatch.storage.s3 import S3Conflict

POLICY = DEFAULT_ARGS["retry_policy"]


def test_the_wait_that_was_asked_for_becomes_the_delay_of_the_retry():
    decision = POLICY.evaluate(RateLimited("slow down", retry_after=30.0), 1, 4)
    assert (decision.action, decision.retry_delay) == (RetryAction.RETRY, timedelta(seconds=31))


@pytest.mark.parametrize("failure", [KeyRejected("key"), WebhookRefused("webhook"), S3Conflict("object")])
def test_what_somebody_has_to_mend_fails_at_once(failure):
    assert POLICY.evaluate(failure, 1, 4).action is RetryAction.FAIL


@pytest.mark.parametrize("failure", [CoinwatchError("out of order"), RateLimited("slow down"), OSError("disk")])
def test_everything_else_is_tried_again_after_the_tasks_own_delay(failure):
    assert POLICY.evaluate(failure, 1, 4).action is RetryAction.DEFAULT
