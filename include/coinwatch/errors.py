"""The errors that are raised on purpose; what a task or a command does with one follows from its attributes."""


class CoinwatchError(RuntimeError):
    """A failure with a known cause; its message says what happened and what to do.

    Attributes:
        retryable: Whether the same call may succeed later, with nothing changed by a person.
        retry_after: Seconds to wait before that; None if the response does not say.
        exit_status: Exit status of a command that ends with it.
    """

    retryable = True
    exit_status = 1

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InvalidAction(CoinwatchError):
    """An action that is not possible; the message says which ones are."""

    retryable = False
    exit_status = 2


class Interrupted(CoinwatchError):
    """A signal asked the command to end."""

    retryable = False

    def __init__(self, signal: int) -> None:
        super().__init__(f"ended by signal {signal}")
        self.exit_status = 128 + signal
