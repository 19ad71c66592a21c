from datetime import UTC, datetime, timedelta

import pytest

from coinwatch.alerting.charts import sparkline

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
START = TEN - timedelta(hours=8)


def drawn(*prices, width=8):
    """Prices on the full hours up to ten; none where there was none."""
    first = TEN - timedelta(hours=len(prices) - 1)
    points = [(first + timedelta(hours=number), price) for number, price in enumerate(prices) if price is not None]
    return sparkline(points, START, TEN, width=width)


@pytest.mark.parametrize(
    ("prices", "line"),
    [
        pytest.param((1, 2, 3, 4, 5, 6, 7, 8), "▁▂▃▄▅▆▇█", id="from the lowest to the highest"),
        pytest.param((8, 7, 6, 5, 4, 3, 2, 1), "█▇▆▅▄▃▂▁", id="and down"),
        pytest.param((1, 8, None, 8, 1, None, None, 1), "▁█·█▁··▁", id="unknown is no low price"),
        pytest.param((3, 9), "······▁█", id="what came before is unknown"),
        pytest.param((5, 5, 5), "·····▅▅▅", id="nothing moves"),
        pytest.param((1000, 1, 2), "·····█▁▁", id="a fall of three orders"),
        pytest.param((7,), "", id="one price shows nothing"),
        pytest.param((), "", id="no price"),
    ],
)
def test_prices_become_bars(prices, line):
    assert drawn(*prices) == line


def test_only_what_lies_in_the_time_is_drawn_its_right_edge_included_and_its_left_one_not():
    points = [(START - timedelta(hours=1), 99.0), (START, 99.0), (START + timedelta(seconds=1), 1.0), (TEN, 2.0)]
    points.append((TEN + timedelta(seconds=1), 99.0))
    assert sparkline(points, START, TEN, width=4) == "▁··█"


def test_the_last_price_of_a_part_stands_for_it():
    assert drawn(1, 2, 3, 4, 5, 6, 7, 8, width=2) == "▄█"
