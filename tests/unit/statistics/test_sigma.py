import math

import pytest

from coinwatch.statistics.sigma import update


@pytest.fixture
def sigma_rules(rules):
    return rules.defaults.sigma


def after(known, moves, sigma_rules, hours=1.0):
    for move in moves:
        known = update(*known, move, hours, sigma_rules)
    return known


def test_at_first_it_is_the_plain_mean_of_squares(sigma_rules):
    variance, samples = after((0.0, 0), [0.01, -0.02, 0.03], sigma_rules)
    assert samples == 3
    assert variance == pytest.approx((0.01**2 + 0.02**2 + 0.03**2) / 3, rel=1e-12)


def test_a_move_of_90_days_ago_counts_half(sigma_rules):
    variance, _ = after((0.0001, 100_000), [0.0] * 90 * 24, sigma_rules)
    assert variance == pytest.approx(0.0001 / 2, rel=1e-9)


def test_a_move_over_several_hours_is_scaled_to_one(sigma_rules):
    assert update(0.0, 0, 0.02, 4.0, sigma_rules)[0] == pytest.approx(0.0001)


def test_two_prices_close_together_count_as_a_quarter_of_an_hour_apart(sigma_rules):
    assert update(0.0, 0, 0.01, 1 / 3600, sigma_rules)[0] == pytest.approx(0.0004)


def test_a_crash_does_not_become_typical(sigma_rules):
    assert update(0.01**2, 48, -0.5, 1.0, sigma_rules) == update(0.01**2, 48, -0.05, 1.0, sigma_rules)
    assert update(0.01**2, 47, -0.5, 1.0, sigma_rules) > update(0.01**2, 47, -0.05, 1.0, sigma_rules)


def test_the_first_move_of_a_constant_price_counts(sigma_rules):
    frozen = after((0.0, 0), [0.0] * 100, sigma_rules)
    assert frozen == (0.0, 100)
    assert math.sqrt(update(*frozen, 0.01, 1.0, sigma_rules)[0]) > 0
