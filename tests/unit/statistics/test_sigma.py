import math

import pytest

from coinwatch.statistics.sigma import Volatility, update


@pytest.fixture
def sigma_rules(rules):
    return rules.defaults.sigma


def learn(state, moves, sigma_rules, hours=1.0):
    for move in moves:
        state = update(state, move, hours, sigma_rules)
    return state


def test_at_first_it_is_the_plain_mean_of_squares(sigma_rules):
    state = learn(Volatility.start(), [0.01, -0.02, 0.03], sigma_rules)
    assert state.samples == 3
    assert state.variance == pytest.approx((0.01**2 + 0.02**2 + 0.03**2) / 3, rel=1e-12)
    assert state.sigma == math.sqrt(state.variance)


def test_later_a_move_of_90_days_ago_counts_half(sigma_rules):
    old = Volatility(0.0001, 100_000)
    after = learn(old, [0.0] * 90 * 24, sigma_rules)
    assert after.variance == pytest.approx(old.variance / 2, rel=1e-9)


def test_a_move_over_several_hours_is_scaled_to_one(sigma_rules):
    assert update(Volatility.start(), 0.02, 4.0, sigma_rules).variance == pytest.approx(0.0001)


def test_two_prices_close_together_count_as_a_quarter_of_an_hour_apart(sigma_rules):
    assert update(Volatility.start(), 0.01, 1 / 3600, sigma_rules).variance == pytest.approx(0.0004)


def test_a_crash_does_not_become_usual(sigma_rules):
    calm = Volatility(0.01**2, 48)
    assert update(calm, -0.5, 1.0, sigma_rules) == update(calm, -0.05, 1.0, sigma_rules)
    young = Volatility(0.01**2, 47)
    assert update(young, -0.5, 1.0, sigma_rules).variance > update(young, -0.05, 1.0, sigma_rules).variance


def test_a_price_that_never_moved_can_still_learn_to(sigma_rules):
    frozen = learn(Volatility.start(), [0.0] * 100, sigma_rules)
    assert frozen.sigma == 0
    assert update(frozen, 0.01, 1.0, sigma_rules).sigma > 0
