"""Markets of the sandbox: simulated, with the same prices for everybody, or recorded."""

import csv
import hashlib
import json
import math
from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, lru_cache
from operator import itemgetter
from pathlib import Path

import numpy as np

from coinwatch.files import replace_file
from coinwatch.times import format_time, parse_time

STEP = timedelta(minutes=5)
"""The simulated walk's grid; between two of its points the price is linear, with a little noise."""

STEPS_PER_HOUR = 12
STEPS_PER_DAY = 288

HOURLY_MOVE = 0.0045
"""Standard deviation of a simulated hour's log return at medium volatility; about 0.5 % over all times."""

STAGED_MOVES = {-4: 0.0065, -3: 0.0065, -2: 0.0065, -1: 0.0045, 0: 0.0015}
"""The same for the days around the fall: volatile before it, so that the fall is no abnormal move of a day even with
three days of history only; calm on both sides of it, so that it is the only abnormal move of an hour."""

SLIP = 0.00038
"""How much the log price declines in each step of the last two hours before the fall."""

FALL = 0.068
"""By which part Bitcoin falls at the market's beginning."""

DROP = 0.08
"""By which part Bitcoin falls on request."""


@dataclass(frozen=True, slots=True)
class SimulatedCoin:
    """What is made up about a coin: its price just before the fall, in US dollars, and how many coins there are."""

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


def simulated_coin(coin: str) -> SimulatedCoin | None:
    """Return what is made up about a coin; also of ``simulated-1``, ``simulated-2`` and so on, for long watch lists."""
    if coin.startswith("simulated-"):
        return SimulatedCoin(coin.title(), f"s{coin.removeprefix('simulated-')}", 1.0, 1_000_000.0)
    return COINS.get(coin)


class SimulatedMarket:
    """Prices with calm and volatile times and an occasional jump; Bitcoin falls at a given moment.

    Prices depend on the distance to that moment, so everybody sees the same ones whatever the clock says.

    Attributes:
        falls_at: When Bitcoin falls, by ``FALL``.
        drops: When Bitcoin fell on request, by ``DROP`` each time.
    """

    kind = "simulated"
    coins = tuple(COINS)

    def __init__(self, falls_at: datetime) -> None:
        self.falls_at = falls_at
        self.drops: list[datetime] = []
        self._file: Path | None = None

    @classmethod
    def kept_in(cls, path: Path, now: datetime) -> "SimulatedMarket":
        """Return the market of a file, so that the next start continues it; a new one falls now."""
        market = cls(now)
        market._file = path
        if path.exists():
            try:
                kept = json.loads(path.read_bytes())
                market.falls_at = parse_time(kept["falls_at"])
                market.drops = [parse_time(time) for time in kept["drops"]]
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(f"{path} is damaged ({error!r}): remove the folder to start anew") from None
        else:
            market._save()
        return market

    def drop(self, at: datetime) -> None:
        """Let Bitcoin fall by ``DROP`` and stay there."""
        self.drops.append(at)
        self._save()

    def _save(self) -> None:
        if self._file is not None:
            kept = {"falls_at": format_time(self.falls_at), "drops": [format_time(at) for at in self.drops]}
            replace_file(self._file, json.dumps(kept).encode())

    def price_at(self, coin: str, moment: datetime) -> float | None:
        """Return the price in US dollars; None for an unknown coin."""
        about = simulated_coin(coin)
        if about is None:
            return None
        steps = (moment - self.falls_at) / STEP
        whole = math.floor(steps)
        here, there = _level(coin, whole), _level(coin, whole + 1)
        noise = 0.0003 * (_digest(coin, math.floor(steps * 5)) / 2**63 - 1)
        price = about.price * math.exp(here + (there - here) * (steps - whole) + noise)
        if coin == "bitcoin":
            price *= (1 - FALL if steps >= 0 else 1) * (1 - DROP) ** sum(at <= moment for at in self.drops)
        return price


def _level(coin: str, step: int) -> float:
    """Return the log price on the grid; it is 0 at the fall."""
    day, rest = divmod(step, STEPS_PER_DAY)
    return _day_start(coin, day) + _day(coin, day)[rest]


@cache
def _day_start(coin: str, day: int) -> float:
    if day < 0:
        return -sum(_day(coin, number)[-1] for number in range(day, 0))
    return sum(_day(coin, number)[-1] for number in range(day))


@lru_cache(maxsize=1000)
def _day(coin: str, day: int) -> list[float]:
    """Return the log price on the grid of a day, from 0 on; volatility persists over five days."""
    volatility = float(np.mean([_random(coin, day - back).normal() for back in range(5)]))
    random = _random(coin, day)
    random.normal()
    moves = random.normal(size=STEPS_PER_DAY) / math.sqrt(STEPS_PER_HOUR)
    if day in STAGED_MOVES:
        moves *= STAGED_MOVES[day]
    else:
        moves *= HOURLY_MOVE * math.exp(0.9 * volatility)
        if random.random() < 0.1:
            moves[random.integers(STEPS_PER_DAY)] += random.choice([-1, 1]) * random.uniform(0.015, 0.03)
    if day == -1:
        # A slow decline only, so that the fall has the same size against every price of the last hours.
        moves[-2 * STEPS_PER_HOUR :] *= 0.2
        moves[-2 * STEPS_PER_HOUR :] -= SLIP
    if day in {-1, 0}:
        # Back to its start every six hours, so that the fall is the only move of these days.
        blocks = moves.reshape(4, -1)
        moves = (blocks - blocks.mean(axis=1, keepdims=True)).ravel()
    return [0.0, *np.cumsum(moves).tolist()]


def _random(coin: str, day: int) -> np.random.Generator:
    return np.random.default_rng(_digest(coin, day))


def _digest(coin: str, number: int) -> int:
    """Return 64 bits that look random and are always the same."""
    return int.from_bytes(hashlib.blake2b(f"1:{coin}:{number}".encode(), digest_size=8).digest())


class RecordedMarket:
    """Recorded prices of one coin; each holds until the next one."""

    kind = "recorded"

    def __init__(self, coin: str, points: list[tuple[datetime, float]]) -> None:
        self.coins = (coin,)
        self._points = sorted(points)

    @classmethod
    def from_csv(cls, path: Path, coin: str) -> "RecordedMarket":
        """Read a CSV file ``timestamp,price`` with a header line."""
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            try:
                points = [(parse_time(row["timestamp"]), float(row["price"])) for row in reader]
            except (KeyError, ValueError, TypeError) as error:
                raise ValueError(f"{path}, line {reader.line_num}: no timestamp and price ({error!r})") from None
        if not points:
            raise ValueError(f"{path} contains no price")
        return cls(coin, points)

    def price_at(self, coin: str, moment: datetime) -> float | None:
        """Return the newest price up to a moment; None for another coin, or before the first price."""
        number = bisect_right(self._points, moment, key=itemgetter(0))
        return self._points[number - 1][1] if number and coin in self.coins else None


Market = SimulatedMarket | RecordedMarket
"""Where the sandbox's prices come from; every answer says its kind."""
