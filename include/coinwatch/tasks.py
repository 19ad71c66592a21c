"""What all tasks have in common, in one place."""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pendulum
from airflow.sdk import RetryPolicy, get_current_context
from airflow.sdk.definitions.retry_policy import RetryDecision

from coinwatch.settings import FAILED_TASKS, load_settings

log = logging.getLogger(__name__)

START_DATE = pendulum.datetime(2026, 1, 1, tz="UTC")

TAGS = ("ingest", "process", "operate")
"""The closed list of tags: what a Dag is for."""

COINGECKO_POOL = "coingecko"
"""Holds back tasks that ask CoinGecko, so that its limits are shared and not fought over."""


class FailureRetryPolicy(RetryPolicy):
    """Asks the failure itself: what nobody has to mend is tried again, after the wait that the other side asked for."""

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,  # noqa: ARG002 - Airflow's signature
        max_tries: int,  # noqa: ARG002 - likewise
        context: Any = None,  # noqa: ARG002 - likewise
    ) -> RetryDecision:
        """Fail at once, retry after the wait that was asked for, or leave it to the task's own delay."""
        from coinwatch.errors import CoinwatchError

        if not isinstance(exception, CoinwatchError):
            return RetryDecision.default()
        if not exception.retryable:
            return RetryDecision.fail("trying again cannot help: somebody has to act")
        if exception.retry_after is not None:
            # One second more: a wait that ends a moment early counts as one more request.
            delay = timedelta(seconds=exception.retry_after + 1)
            return RetryDecision.retry(delay, reason=f"asked to wait {exception.retry_after:.0f} s")
        return RetryDecision.default()


def as_of_time() -> datetime:
    """Return the as-of time of the running task's run, which names everything the run writes (contract, section 4)."""
    dag_run = get_current_context()["dag_run"]
    moment: datetime = dag_run.logical_date or dag_run.run_after
    return moment.astimezone(UTC).replace(microsecond=0)


def note_failure(context: Any) -> None:
    """A task failed for good: the operators are told once (`on_failure_callback`)."""
    _call_back("failed", context)


def note_success(context: Any) -> None:
    """A task went through: if it had failed before, the operators are told that this is over."""
    _call_back("recovered", context)


def _call_back(what: str, context: Any) -> None:
    try:
        # Nearly always nothing has failed before, and then nothing is loaded for it.
        if what == "recovered" and not any((load_settings().data_dir / FAILED_TASKS).glob("*.json")):
            return
        from coinwatch.app import open_failures
        from coinwatch.health.task_failures import TaskRun

        run, failures = TaskRun.of(context), open_failures()
        if what == "failed":
            failures.failed(run, context.get("exception"))
        else:
            failures.recovered(run)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not stand in the way of what the task itself came to
        # Its text may hold the address of a database or a webhook.
        log.error("the operators were not told what became of the task: %s", type(error).__name__)


DEFAULT_ARGS: dict[str, Any] = {
    "owner": "coinwatch",
    "retries": 4,
    # 1, 2, 4 and 8 minutes: four tries are over before the next hour.
    "retry_delay": timedelta(minutes=1),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=10),
    "retry_policy": FailureRetryPolicy(),
    # Nothing takes this long; a task that hangs would stop all hours after it.
    "execution_timeout": timedelta(minutes=20),
    "on_failure_callback": note_failure,
    "on_success_callback": note_success,
}
