"""What a task needs to know of a failure: whether to try again, and when."""


class CoinwatchError(RuntimeError):
    """A failure that is understood; its message says what happened, to whom, and what to do.

    Attributes:
        retryable: Whether the same thing may work later without anybody doing something about it.
        retry_after: Seconds to wait before that, where the other side said so.
    """

    retryable = True

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class WrongOrder(CoinwatchError):
    """What a person asked for cannot be done; the message says what can."""

    retryable = False
