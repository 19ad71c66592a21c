"""What all tasks have in common."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import RetryPolicy, get_current_context
from airflow.sdk.definitions.retry_policy import RetryDecision

log = logging.getLogger(__name__)

TAGS = ("ingest", "process", "operate")
"""All tags: what a Dag is for."""

COINGECKO_POOL = "coingecko"
"""The pool of tasks that send requests to CoinGecko, which share its limits."""


class ErrorRetryPolicy(RetryPolicy):
    """Retry what may succeed later, after the time that the other side asked for."""

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002 - Airflow's signature
        max_tries: int,  # noqa: ARG002 - Airflow's signature
        context: Any = None,  # noqa: ARG002 - Airflow's signature
    ) -> RetryDecision:
        """Return what to do about an exception."""
        from coinwatch.errors import CoinwatchError

        if not isinstance(exception, CoinwatchError):
            return RetryDecision.default()
        if not exception.retryable:
            return RetryDecision.fail("a retry cannot help: an operator has to act")
        if exception.retry_after is not None:
            # One second more: a request that is sent a moment early counts, and is refused.
            delay = timedelta(seconds=exception.retry_after + 1)
            return RetryDecision.retry(delay, reason=f"retry after {exception.retry_after:.0f} s")
        return RetryDecision.default()


def as_of_time() -> datetime:
    """Return the as-of time of the running task's run, which names everything the run writes (contract, section 4)."""
    dag_run = get_current_context()["dag_run"]
    moment: datetime = dag_run.logical_date or dag_run.run_after
    return moment.astimezone(UTC).replace(microsecond=0)


def report_failure(context: Any) -> None:
    """Report a task that failed for good as a pipeline issue (`on_failure_callback`)."""
    try:
        from coinwatch.app import App
        from coinwatch.health import task_failures

        task_failures.report_failure(App(), context)
    except Exception as error:  # noqa: BLE001 - the task's own error is in its log, and must stay the last word there
        # Its text may hold the address of a database or a webhook.
        log.error("operators are not notified of the failed task: %s", type(error).__name__)


DEFAULT_ARGS: dict[str, Any] = {
    "owner": "coinwatch",
    "retries": 4,
    # 1, 2, 4 and 8 minutes: the last retry is over before the next hour.
    "retry_delay": timedelta(minutes=1),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
    "retry_policy": ErrorRetryPolicy(),
    # Nothing takes this long; a task that hangs would delay all later hours.
    "execution_timeout": timedelta(minutes=20),
    "on_failure_callback": report_failure,
}
