"""Sigma: a coin's typical move of an hour. Pure.

An exponentially weighted mean of squared log returns per hour, stored with each row as its variance: a row needs only
the one before. A weight of at least 1 / (samples + 1) starts it without bias.
"""

import math
from collections.abc import Sequence

from coinwatch.rules import HourMoveRule, MoveRule, Rules, SigmaRules


def update(variance: float, samples: int, log_return: float, hours: float, rules: SigmaRules) -> tuple[float, int]:
    """Return the variance of the log return over one hour, and the moves learned from, after one more move."""
    move = log_return / math.sqrt(max(hours, rules.min_interval_hours))
    limit = rules.clip_sigmas * math.sqrt(variance)
    # A price that never moved has no variance to clip by: its first move counts.
    if samples >= rules.clip_after_samples and limit > 0:
        move = max(-limit, min(limit, move))
    weight = max(1 - 0.5 ** (1 / (rules.half_life_days * 24)), 1 / (samples + 1))
    return variance + weight * (move * move - variance), samples + 1


def threshold(rule: MoveRule, typical: float) -> float:
    """Return the size from which a move is abnormal, as a log return, given the typical move of as many hours."""
    return max(rule.sigmas * typical, rule.min_pct / 100)


def takes_back(move: float, back: float, hours: float, rule: HourMoveRule) -> bool:
    """Return whether a move that follows another one after some hours shows that that one was a spike."""
    return move * back < 0 and abs(back) >= rule.revert_fraction * abs(move) and hours <= rule.revert_hours


def learn(moves: Sequence[Sequence[float]], variance: list[float], samples: list[int], rules: Rules) -> list[bool]:
    """Learn from the new prices of one coin, row by row: each needs what was known before it.

    Nothing is learned from a spike: when the price comes back, what was known before the spike holds again.

    Args:
        moves: Four columns, ascending in time, the known rows first: the price, the hours since the row before, the
            price about an hour ago (NaN if there is none), and the hours since that one.
        variance: After each known row; one is appended for each new row.
        samples: Moves learned from; one is appended for each new row.
        rules: Of this coin.

    Returns:
        For each new row, whether the price before it was a spike that it takes back.
    """
    prices, hours, references, reference_hours = moves
    first, reverts = len(variance), []
    jump: float | None = None
    # The last known row may be a spike.
    for row in range(max(first - 1, 0), len(prices)):
        before = (variance[row - 1], samples[row - 1]) if row else (0.0, 0)
        if row >= first:
            is_back, after = False, before
            if row:
                log_return = math.log(prices[row] / prices[row - 1])
                is_back = jump is not None and takes_back(jump, log_return, hours[row], rules.move_1h)
                if is_back:
                    after = (variance[row - 2], samples[row - 2])
                else:
                    after = update(*before, log_return, hours[row], rules.sigma)
            variance.append(after[0])
            samples.append(after[1])
            reverts.append(is_back)
        jump = _jump(prices[row], references[row], reference_hours[row], before, rules)
    return reverts


def _jump(price: float, reference: float, hours: float, before: tuple[float, int], rules: Rules) -> float | None:
    """Return the move of about an hour that led to a price, if it is abnormal by what was known before it."""
    variance, samples = before
    if math.isnan(reference) or samples < rules.warm_up_samples:
        return None
    move = math.log(price / reference)
    return move if abs(move) >= threshold(rules.move_1h, math.sqrt(variance * hours)) else None
