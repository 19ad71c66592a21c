"""Sigma: a coin's typical move of an hour. Pure.

An exponentially weighted mean of squared log returns per hour, stored with each row as its variance: a row needs only
the one before. A weight of at least 1 / (samples + 1) starts it without bias.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from coinwatch.rules import MoveRule, Rules

Floats = npt.NDArray[np.float64]


def threshold(rule: MoveRule, typical: float) -> float:
    """Return the size from which a move is abnormal, as a log return, given the typical move of as many hours."""
    return max(rule.sigmas * typical, rule.min_pct / 100)


def learn(moves: Mapping[str, list[Any]], variance: list[float], samples: list[int], rules: Rules) -> list[int]:
    """Learn from the new prices of one coin, row by row: each needs what was known before it.

    Nothing is learned from a spike: when the price comes back, what was known before the spike holds again.

    Args:
        moves: Columns from ``prepare``, ascending in time, the known rows first.
        variance: After each known row; one is appended for each new row.
        samples: Moves learned from; one is appended for each new row.
        rules: Of this coin.

    Returns:
        The rows that take back a spike: the price before each of them was one.
    """
    sigma = rules.sigma
    clip_after, clip_sigmas, sqrt = sigma.clip_after_samples, sigma.clip_sigmas, math.sqrt
    least_weight = 1 - 0.5 ** (1 / (sigma.half_life_days * 24))
    many = 1 / least_weight
    reverts = []
    if not variance:
        variance.append(0.0)
        samples.append(0)
    first, value, count = len(variance), variance[-1], samples[-1]
    new = zip(moves["square"][first:], moves["may_revert"][first:], strict=True)
    for row, (square, may_revert) in enumerate(new, first):
        if may_revert and _was_spike(moves, row - 1, variance, samples, rules):
            reverts.append(row)
            value, count = variance[row - 2], samples[row - 2]
        else:
            if count >= clip_after:
                limit = clip_sigmas * sqrt(value)
                # A price that never moved has no variance to clip by: its first move counts.
                if square > limit * limit > 0:
                    square = limit * limit  # noqa: PLW2901 - what is learned from
            count += 1
            value += (least_weight if count > many else max(least_weight, 1 / count)) * (square - value)
        variance.append(value)
        samples.append(count)
    return reverts


def _was_spike(
    moves: Mapping[str, list[Any]], row: int, variance: Sequence[float], samples: Sequence[int], rules: Rules
) -> bool:
    """Return whether the move to a price was abnormal by what was known before it."""
    if not row or samples[row - 1] < rules.warm_up_samples:
        return False
    typical = math.sqrt(variance[row - 1] * moves["reference_hours"][row])
    return bool(abs(moves["reference_move"][row]) >= threshold(rules.move_1h, typical))


def prepare(
    price: Floats,
    reference_price: Floats,
    hours: Floats,
    reference_hours: Floats,
    books: Sequence[Rules],
    codes: npt.NDArray[np.int64],
) -> dict[str, list[Any]]:
    """Return what ``learn`` needs of each row, as far as it does not depend on the rows before.

    Args:
        price: Of all coins, one after the other, ascending in time.
        reference_price: The price about an hour before; NaN if there is none.
        hours: Since the row before.
        reference_hours: Since the reference price.
        books: The rules of each coin.
        codes: The number of each row's coin.

    Returns:
        ``square``: the squared log return per hour since the row before. ``reference_move``: the log return since the
        reference price; ``reference_hours``. ``may_revert``: whether the row takes back the move to the row before.
    """

    def of_row(value: Callable[[Rules], float]) -> Floats:
        of_coin: Floats = np.array([value(book) for book in books], np.float64)
        return of_coin[codes]

    # math.log: numpy's differs in the last bit between processors.
    move = np.array(list(map(math.log, (price / np.roll(price, 1)).tolist())))
    reference_move = np.array(list(map(math.log, (price / reference_price).tolist())))
    before = np.roll(reference_move, 1)
    may_revert = (
        (np.abs(before) >= of_row(lambda book: book.move_1h.min_pct / 100))
        & (before * move < 0)
        & (np.abs(move) >= of_row(lambda book: book.move_1h.revert_fraction) * np.abs(before))
        & (hours <= of_row(lambda book: book.move_1h.revert_hours))
    )
    per_hour = move / np.sqrt(np.maximum(hours, of_row(lambda book: book.sigma.min_interval_hours)))
    return {
        "square": (per_hour * per_hour).tolist(),
        "may_revert": may_revert.tolist(),
        "reference_move": reference_move.tolist(),
        "reference_hours": reference_hours.tolist(),
    }
