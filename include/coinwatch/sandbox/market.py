"""Markets for the sandbox: simulated, the same for everybody, or recorded."""

import csv
import hashlib
import json
import math
from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from coinwatch.storage.files import replace_file
from coinwatch.times import HOUR, format_time, parse_time

DAY = timedelta(days=1)

HOURLY_MOVE = 0.0068
"""The usual log return of a simulated hour, in a time neither calm nor wild."""


class Market(Protocol):
    """Where the sandbox's prices come from.

    Attributes:
        kind: How the prices came about; every answer says so.
    """

    kind: Literal["simulated", "recorded"]

    def price_at(self, coin: str, moment: datetime) -> float | None:
        """The price of a coin in US dollars; none where the coin, or the market then, did not exist."""


@dataclass(frozen=True, slots=True)
class SimulatedCoin:
    """What is made up about a coin.

    Attributes:
        price: In US dollars, at the moment before the fall.
        supply: Coins in circulation.
    """

    price: float
    supply: float


COINS = {
    "bitcoin": SimulatedCoin(97_412.58, 19_950_000),
    "ethereum": SimulatedCoin(3_327.41, 120_700_000),
    "solana": SimulatedCoin(188.36, 555_000_000),
    "ripple": SimulatedCoin(2.2471, 60_100_000_000),
    "dogecoin": SimulatedCoin(0.161834, 151_600_000_000),
    "shiba-inu": SimulatedCoin(0.00000918427, 589_200_000_000_000),
}


class SimulatedMarket:
    """Hourly prices with calm and wild times and an occasional jump; Bitcoin falls at a given moment, once.

    The story is told relative to that moment, so everybody sees the same one whatever the clock says.

    Attributes:
        kind: ``simulated``.
        falls_at: When Bitcoin falls.
        fall: By which part of its price.
    """

    kind: Literal["simulated", "recorded"] = "simulated"

    def __init__(self, falls_at: datetime, *, seed: int = 1, fall: float = 0.068) -> None:
        self.falls_at = falls_at
        self.fall = fall
        self._seed = seed
        self._days = lru_cache(maxsize=None)(self._make_day)
        self._levels: dict[str, dict[int, float]] = {coin: {0: 0.0} for coin in COINS}

    @classmethod
    def kept_in(cls, path: Path, now: datetime) -> "SimulatedMarket":
        """The market of a file, so that the next start goes on with it; a new one falls now."""
        if not path.exists():
            replace_file(path, json.dumps({"seed": 1, "falls_at": format_time(now)}).encode())
        kept = json.loads(path.read_bytes())
        return cls(parse_time(kept["falls_at"]), seed=kept["seed"])

    def price_at(self, coin: str, moment: datetime) -> float | None:
        """The price of a coin in US dollars; none for a coin that is not simulated."""
        if coin not in COINS:
            return None
        hours = (moment - self.falls_at) / HOUR
        whole = math.floor(hours)
        here, there = self._level(coin, whole), self._level(coin, whole + 1)
        noise = 0.0003 * self._noise(coin, math.floor(hours * 60))
        price = COINS[coin].price * math.exp(here + (there - here) * (hours - whole) + noise)
        return price * (1 - self.fall) if coin == "bitcoin" and hours >= 0 else price

    def _noise(self, coin: str, minute: int) -> float:
        digest = hashlib.blake2b(f"{self._seed}:{coin}:{minute}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**63 - 1

    def _level(self, coin: str, hour: int) -> float:
        """Log price on the grid of hours, 0 at the fall."""
        day, rest = divmod(hour, 24)
        return self._day_start(coin, day) + float(np.sum(self._days(coin, day)[:rest]))

    def _day_start(self, coin: str, day: int) -> float:
        levels = self._levels[coin]
        if day not in levels:
            nearest = max((known for known in levels if known < day), default=None) if day > 0 else None
            if nearest is not None:
                for number in range(nearest, day):
                    levels[number + 1] = levels[number] + float(np.sum(self._days(coin, number)))
            else:
                for number in range(min(levels), day, -1):
                    levels[number - 1] = levels[number] - float(np.sum(self._days(coin, number - 1)))
        return levels[day]

    def _make_day(self, coin: str, day: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """The 24 log returns of a day; its wildness has much of that of the days before it."""
        wildness = np.mean([self._random(coin, day - back).normal() for back in range(5)])
        random = self._random(coin, day)
        random.normal()
        returns = HOURLY_MOVE * math.exp(0.9 * wildness) * random.normal(size=24)
        jumps = random.random(24) < 1 / 250
        returns += jumps * random.choice([-1, 1], 24) * random.uniform(0.015, 0.03, 24)
        if day == -1:
            # The day before the fall is calm and ends where it began: what an alert tells of is the fall alone.
            returns = 0.5 * HOURLY_MOVE * random.normal(size=24)
            returns -= returns.mean()
        return returns

    def _random(self, coin: str, day: int) -> np.random.Generator:
        digest = hashlib.blake2b(f"{self._seed}:{coin}:{day}".encode(), digest_size=8).digest()
        return np.random.default_rng(int.from_bytes(digest))


class RecordedMarket:
    """Prices of one coin that were recorded; between two of them the earlier one holds.

    Attributes:
        kind: ``recorded``.
    """

    kind: Literal["simulated", "recorded"] = "recorded"

    def __init__(self, coin: str, points: list[tuple[datetime, float]]) -> None:
        self._coin = coin
        self._points = sorted(points)
        self._times = [moment for moment, _ in self._points]

    @classmethod
    def from_csv(cls, path: Path, coin: str) -> "RecordedMarket":
        """Read ``timestamp,price`` with a header line.

        Raises:
            ValueError: The file does not have these columns.
        """
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if not {"timestamp", "price"} <= set(reader.fieldnames or ()):
                raise ValueError(f"{path} needs a header line with timestamp and price, but has {reader.fieldnames}")
            return cls(coin, [(parse_time(row["timestamp"]), float(row["price"])) for row in reader])

    def price_at(self, coin: str, moment: datetime) -> float | None:
        """The newest price at or before a moment; none for another coin, or before the first one."""
        number = bisect_right(self._times, moment)
        return self._points[number - 1][1] if number and coin == self._coin else None
