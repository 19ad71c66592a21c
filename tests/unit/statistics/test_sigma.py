import math

import numpy as np
import pytest

from coinwatch.statistics.sigma import learn, prepare


@pytest.fixture
def after(rules):
    """Learn from moves, as log returns, after what is known: → (variance, samples)."""

    def after(moves, known=(0.0, 0), hours=1.0):
        price = 100 * np.exp(np.cumsum([0.0, *moves]))
        unknown = np.full(len(price), math.nan)
        columns = prepare(
            price, unknown, np.full(len(price), hours), unknown, [rules.defaults], np.zeros(len(price), int)
        )
        variance, samples = [known[0]], [known[1]]
        assert learn(columns, variance, samples, rules.defaults) == []
        return variance[-1], samples[-1]

    return after


def test_at_first_it_is_the_plain_mean_of_squares(after):
    variance, samples = after([0.01, -0.02, 0.03])
    assert samples == 3
    assert variance == pytest.approx((0.01**2 + 0.02**2 + 0.03**2) / 3, rel=1e-12)


def test_a_move_of_90_days_ago_counts_half(after):
    variance, _ = after([0.0] * 90 * 24, known=(0.0001, 100_000))
    assert variance == pytest.approx(0.0001 / 2, rel=1e-9)


def test_a_move_over_several_hours_is_scaled_to_one(after):
    assert after([0.02], hours=4.0)[0] == pytest.approx(0.0001)


def test_two_prices_close_together_count_as_a_quarter_of_an_hour_apart(after):
    assert after([0.01], hours=1 / 3600)[0] == pytest.approx(0.0004)


def test_a_crash_does_not_become_typical(after):
    crash, limit = [after([move], known=(0.01**2, 48)) for move in (-0.5, -0.05)]
    assert crash == pytest.approx(limit)
    crash, limit = [after([move], known=(0.01**2, 47)) for move in (-0.5, -0.05)]
    assert crash[0] > 10 * limit[0]


def test_the_first_move_of_a_constant_price_counts(after):
    frozen = after([0.0] * 100)
    assert frozen == (0.0, 100)
    assert after([0.01], known=frozen)[0] > 0
