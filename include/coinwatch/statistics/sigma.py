"""Sigma: a coin's usual 1-hour move, the one number of memory that detection needs (docs: how anomalies are found).

An exponentially weighted mean of squared log returns per hour. It needs only its last value to go on, so it is stored
with each row; a weight of at least 1/(n + 1) starts it without bias.
"""

import math
from dataclasses import dataclass
from typing import Self

from coinwatch.rules import SigmaRules


@dataclass(frozen=True, slots=True)
class Volatility:
    """What has been learned of a coin's moves.

    Attributes:
        variance: Of the log return over one hour.
        samples: Moves learned from.
    """

    variance: float
    samples: int

    @classmethod
    def start(cls) -> Self:
        """Nothing has been learned yet."""
        return cls(0.0, 0)

    @property
    def sigma(self) -> float:
        """The usual log return over one hour."""
        return math.sqrt(self.variance)


def update(state: Volatility, log_return: float, hours: float, rules: SigmaRules) -> Volatility:
    """Learn from one move.

    Args:
        state: What was learned before.
        log_return: ln(price / price before).
        hours: Between the two prices.
        rules: Half-life and clipping.
    """
    move = log_return / math.sqrt(max(hours, rules.min_interval_hours))
    limit = rules.clip_sigmas * state.sigma
    # A price that never moved yet has no measure to clip by: its first move must count.
    if state.samples >= rules.clip_after_samples and limit > 0:
        move = max(-limit, min(limit, move))
    weight = max(1 - 0.5 ** (1 / (rules.half_life_days * 24)), 1 / (state.samples + 1))
    return Volatility(state.variance + weight * (move * move - state.variance), state.samples + 1)
