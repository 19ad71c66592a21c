"""Every way in which CoinGecko does not give a price, by name; each message ends in what to do."""

from coinwatch.archive.snapshots import Answer
from coinwatch.errors import CoinwatchError


class CoinGeckoError(CoinwatchError):
    """CoinGecko gave no price.

    Attributes:
        answer: What it said instead, for the archive; none where no answer came.
    """

    def __init__(self, message: str, *, answer: Answer | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.answer = answer


class RateLimited(CoinGeckoError):
    """Too many requests for the plan."""


class Unavailable(CoinGeckoError):
    """It cannot be reached, is out of order, or its answer broke off on the way."""


class Blocked(CoinGeckoError):
    """Its front door refuses this address or client."""


class NotUnderstood(CoinGeckoError):
    """The answer is not what the documentation promises."""


class KeyRejected(CoinGeckoError):
    """The API key is missing or wrong."""

    retryable = False


class WrongHost(CoinGeckoError):
    """The key belongs to the other one of the two hosts."""

    retryable = False


class BeyondPlan(CoinGeckoError):
    """The plan does not include what was asked for."""

    retryable = False


class UnknownCoin(CoinGeckoError):
    """No coin with this id."""

    retryable = False


class BadRequest(CoinGeckoError):
    """It does not accept the request as it is."""

    retryable = False
