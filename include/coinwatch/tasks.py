"""What the tasks of all Dags share: default arguments, retry policy, failure callback, as-of time."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pendulum
from airflow.sdk import RetryPolicy, get_current_context
from airflow.sdk.definitions.retry_policy import RetryDecision

log = logging.getLogger(__name__)

START_DATE = pendulum.datetime(2026, 1, 1, tz="UTC")

TAGS = ("ingest", "process", "operate")
"""All tags."""

COINGECKO_POOL = "coingecko"
"""The pool of tasks that send requests to CoinGecko, which share its limits."""


class ErrorRetryPolicy(RetryPolicy):
    """Retry errors that are retryable, after their Retry-After."""

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002 - Airflow's signature
        max_tries: int,  # noqa: ARG002 - Airflow's signature
        context: Any = None,  # noqa: ARG002 - Airflow's signature
    ) -> RetryDecision:
        """Return the decision for an exception."""
        from coinwatch.errors import CoinwatchError

        if not isinstance(exception, CoinwatchError):
            return RetryDecision.default()
        if not exception.retryable:
            return RetryDecision.fail("not retryable: an operator has to act")
        if exception.retry_after is not None:
            # One second more: a request that is sent too early is refused, and counts.
            delay = timedelta(seconds=exception.retry_after + 1)
            return RetryDecision.retry(delay, reason=f"retry after {exception.retry_after:.0f} s")
        return RetryDecision.default()


def as_of_time() -> datetime:
    """Return the as-of time of the running task's run, which names everything it writes (contract, section 4)."""
    dag_run = get_current_context()["dag_run"]
    moment: datetime = dag_run.logical_date or dag_run.run_after
    return moment.astimezone(UTC).replace(microsecond=0)


def report_failure(context: Any) -> None:
    """Report a task that failed for good as a pipeline issue (`on_failure_callback`)."""
    try:
        from coinwatch.app import App
        from coinwatch.health import task_failures

        task_failures.report_failure(App(), context)
    except Exception as error:  # noqa: BLE001 - the task's log must end with the task's own error
        # The text may contain the URL of a database or a webhook.
        log.error("operators are not notified of the failed task: %s", type(error).__name__)


DEFAULT_ARGS: dict[str, Any] = {
    "owner": "coinwatch",
    "retries": 4,
    # 1, 2, 4 and 8 minutes: the last retry ends before the next hour.
    "retry_delay": timedelta(minutes=1),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
    "retry_policy": ErrorRetryPolicy(),
    # No task takes this long; one that hangs would delay all later hours.
    "execution_timeout": timedelta(minutes=20),
    "on_failure_callback": report_failure,
}
