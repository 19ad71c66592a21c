"""Markets for the sandbox: simulated, the same for everybody, or recorded."""

import csv
import hashlib
import json
import math
import threading
from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from coinwatch.files import replace_file
from coinwatch.times import format_time, parse_time

STEP = timedelta(minutes=5)
"""The simulated walk's grid; between two of its points the price goes straight, but for a little noise."""

STEPS_PER_HOUR = 12
STEPS_PER_DAY = 288

HOURLY_MOVE = 0.0045
"""The log return of a simulated hour, in a time neither calm nor wild; with the wild ones it is about 0.5 %."""

STAGED_MOVES = {-4: 0.0065, -3: 0.0065, -2: 0.0065, -1: 0.0045, 0: 0.0015}
"""Likewise for the days around the fall. Lively before it, so that the fall is no abnormal move of a day, even for one
who knows three days of history only; quiet on both sides of it, so that it stands alone as the move of an hour."""

SLIP = 0.00038
"""What the price gives way in each step of the last two hours before the fall."""


class Market(Protocol):
    """Where the sandbox's prices come from.

    Attributes:
        kind: How the prices came about; every answer says so.
        coins: CoinGecko ids that it knows.
    """

    kind: Literal["simulated", "recorded"]
    coins: tuple[str, ...]

    def price_at(self, coin: str, moment: datetime) -> float | None:
        """The price of a coin in US dollars; none where the coin, or the market then, did not exist."""


@dataclass(frozen=True, slots=True)
class SimulatedCoin:
    """What is made up about a coin.

    Attributes:
        name: As people write it.
        symbol: As exchanges write it.
        price: In US dollars, at the moment before the fall.
        supply: Coins in circulation.
    """

    name: str
    symbol: str
    price: float
    supply: float


COINS = {
    "bitcoin": SimulatedCoin("Bitcoin", "btc", 97_412.58, 19_950_000),
    "ethereum": SimulatedCoin("Ethereum", "eth", 3_327.41, 120_700_000),
    "solana": SimulatedCoin("Solana", "sol", 188.36, 555_000_000),
    "ripple": SimulatedCoin("XRP", "xrp", 2.2471, 60_100_000_000),
    "dogecoin": SimulatedCoin("Dogecoin", "doge", 0.161834, 151_600_000_000),
    "shiba-inu": SimulatedCoin("Shiba Inu", "shib", 0.00000918427, 589_200_000_000_000),
}


class SimulatedMarket:
    """Prices with calm and wild times and an occasional jump; Bitcoin falls at a given moment, once.

    The story is told relative to that moment, so everybody sees the same one whatever the clock says. May be asked by
    several threads.

    Attributes:
        kind: ``simulated``.
        coins: What is simulated.
        falls_at: When Bitcoin falls.
        fall: By which part of its price.
    """

    kind: Literal["simulated", "recorded"] = "simulated"
    coins = tuple(COINS)

    def __init__(self, falls_at: datetime, *, seed: int = 1, fall: float = 0.068) -> None:
        self.falls_at = falls_at
        self.fall = fall
        self._seed = seed
        self._lock = threading.Lock()
        self._paths = lru_cache(maxsize=None)(self._make_path)
        self._starts: dict[str, dict[int, float]] = {coin: {0: 0.0} for coin in COINS}

    @classmethod
    def kept_in(cls, path: Path, now: datetime) -> "SimulatedMarket":
        """The market of a file, so that the next start goes on with it; a new one falls now.

        Raises:
            ValueError: The file does not say what market it was.
        """
        if not path.exists():
            replace_file(path, json.dumps({"seed": 1, "falls_at": format_time(now)}).encode())
        try:
            kept = json.loads(path.read_bytes())
            return cls(parse_time(kept["falls_at"]), seed=int(kept["seed"]))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path} does not say which market it was ({error!r}): remove the folder {path.parent} to start anew"
            ) from None

    def price_at(self, coin: str, moment: datetime) -> float | None:
        """The price of a coin in US dollars; none for a coin that is not simulated."""
        if coin not in COINS:
            return None
        steps = (moment - self.falls_at) / STEP
        whole = math.floor(steps)
        with self._lock:
            here, there = self._level(coin, whole), self._level(coin, whole + 1)
        noise = 0.0003 * self._noise(coin, math.floor(steps * 5))
        price = COINS[coin].price * math.exp(here + (there - here) * (steps - whole) + noise)
        return price * (1 - self.fall) if coin == "bitcoin" and steps >= 0 else price

    def _noise(self, coin: str, minute: int) -> float:
        digest = hashlib.blake2b(f"{self._seed}:{coin}:{minute}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**63 - 1

    def _level(self, coin: str, step: int) -> float:
        """Log price on the grid, 0 at the fall."""
        day, rest = divmod(step, STEPS_PER_DAY)
        return self._day_start(coin, day) + float(self._paths(coin, day)[rest])

    def _day_start(self, coin: str, day: int) -> float:
        # Days that are known lie side by side around the fall.
        starts = self._starts[coin]
        while day not in starts:
            if day > 0:
                last = max(starts)
                starts[last + 1] = starts[last] + float(self._paths(coin, last)[-1])
            else:
                first = min(starts)
                starts[first - 1] = starts[first] - float(self._paths(coin, first - 1)[-1])
        return starts[day]

    def _make_path(self, coin: str, day: int) -> npt.NDArray[np.float64]:
        """Log price on the grid of a day, from 0 on; its wildness has much of that of the days before it."""
        wildness = float(np.mean([self._random(coin, day - back).normal() for back in range(5)]))
        random = self._random(coin, day)
        random.normal()
        moves = random.normal(size=STEPS_PER_DAY) / math.sqrt(STEPS_PER_HOUR)
        if day in STAGED_MOVES:
            moves *= STAGED_MOVES[day]
        else:
            moves *= HOURLY_MOVE * math.exp(0.9 * wildness)
            if random.random() < 0.1:
                moves[random.integers(STEPS_PER_DAY)] += random.choice([-1, 1]) * random.uniform(0.015, 0.03)
        if day == -1:
            # It only slips, so that the fall is told as it is, whatever price of the last hours it is held against.
            moves[-2 * STEPS_PER_HOUR :] *= 0.2
            moves[-2 * STEPS_PER_HOUR :] -= SLIP
        if day in {-1, 0}:
            # Every six hours where it began, so that the fall is all that these days bring.
            blocks = moves.reshape(4, -1)
            moves = (blocks - blocks.mean(axis=1, keepdims=True)).ravel()
        return np.concatenate([[0.0], np.cumsum(moves)])

    def _random(self, coin: str, day: int) -> np.random.Generator:
        digest = hashlib.blake2b(f"{self._seed}:{coin}:{day}".encode(), digest_size=8).digest()
        return np.random.default_rng(int.from_bytes(digest))


class RecordedMarket:
    """Prices of one coin that were recorded; between two of them the earlier one holds.

    Attributes:
        kind: ``recorded``.
        coins: That one.
    """

    kind: Literal["simulated", "recorded"] = "recorded"

    def __init__(self, coin: str, points: list[tuple[datetime, float]]) -> None:
        self.coins: tuple[str, ...] = (coin,)
        self._points = sorted(points)
        self._times = [moment for moment, _ in self._points]

    @classmethod
    def from_csv(cls, path: Path, coin: str) -> "RecordedMarket":
        """Read ``timestamp,price`` with a header line.

        Raises:
            ValueError: The file does not have these columns, or a line of it is not understood.
        """
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if not {"timestamp", "price"} <= set(reader.fieldnames or ()):
                raise ValueError(f"{path} needs a header line with timestamp and price, but has {reader.fieldnames}")
            points = []
            for row in reader:
                try:
                    points.append((parse_time(row["timestamp"]), _finite(row["price"])))
                except (ValueError, TypeError) as error:
                    raise ValueError(f"{path}, line {reader.line_num}: {error}") from None
        if not points:
            raise ValueError(f"{path} has no price in it")
        return cls(coin, points)

    def price_at(self, coin: str, moment: datetime) -> float | None:
        """The newest price at or before a moment; none for another coin, or before the first one."""
        number = bisect_right(self._times, moment)
        return self._points[number - 1][1] if number and coin in self.coins else None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is no price")
    return number
