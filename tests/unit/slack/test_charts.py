from datetime import UTC, datetime, timedelta
from io import BytesIO

import numpy as np
import pytest
from matplotlib.image import imread

from coinwatch.slack.charts import draw_chart, sparkline

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
START = TEN - timedelta(hours=8)


def by_hour(*prices):
    """Prices on the full hours up to ten; None where there is none."""
    first = TEN - timedelta(hours=len(prices) - 1)
    return [(first + timedelta(hours=number), price) for number, price in enumerate(prices) if price is not None]


@pytest.mark.parametrize(
    ("prices", "line"),
    [
        pytest.param((1, 2, 3, 4, 5, 6, 7, 8), "▁▂▃▄▅▆▇█", id="from the lowest to the highest"),
        pytest.param((8, 7, 6, 5, 4, 3, 2, 1), "█▇▆▅▄▃▂▁", id="and down"),
        pytest.param((1, 8, None, 8, 1, None, None, 1), "▁█·█▁··▁", id="unknown is not low"),
        pytest.param((3, 9), "······▁█", id="unknown before"),
        pytest.param((5, 5, 5), "·····▅▅▅", id="flat"),
        pytest.param((1000, 1, 2), "·····█▁▁", id="a fall of three orders"),
        pytest.param((7,), "", id="one price"),
        pytest.param((), "", id="no price"),
    ],
)
def test_prices_become_bars(prices, line):
    assert sparkline(by_hour(*prices), START, TEN, width=8) == line


def test_a_bar_shows_the_last_price_of_its_part_and_a_time_on_an_edge_belongs_to_the_part_before_it():
    assert sparkline(by_hour(1, 2, 3, 4, 5, 6, 7, 8), START, TEN, width=2) == "▄█"
    points = [(START + timedelta(seconds=1), 1.0), (START + timedelta(hours=2), 2.0), (TEN, 2.0)]
    assert sparkline(points, START, TEN, width=4) == "█··█"


def pixels(*prices):
    """Draw prices: the pixels of the line, and of the last price."""
    png = draw_chart(by_hour(*prices), START, TEN, title="bitcoin", currency="usd")
    red, green, blue = np.moveaxis(imread(BytesIO(png), format="png")[..., :3], -1, 0)
    line = np.argwhere((blue > 0.55) & (red < 0.2) & (green < 0.5))
    last = np.argwhere((red > 0.8) & (green < 0.3) & (blue < 0.5))
    return line, last


def test_a_chart_rises_with_the_price_and_marks_the_last_one():
    line, last = pixels(1, 2, 3, 4, 5, 6, 7, 8)
    columns = np.unique(line[:, 1])
    assert line[line[:, 1] == columns[0], 0].mean() > 200
    assert line[line[:, 1] == columns[-8], 0].mean() < 100
    assert columns[-1] < last[:, 1].max()


@pytest.mark.parametrize(("prices", "is_joined"), [((1, 2, None, 4, 5, 6), True), ((1, 2, None, None, 5, 6), False)])
def test_prices_more_than_two_hours_apart_are_not_joined(prices, is_joined):
    line, _ = pixels(*prices)
    widest = np.diff(np.unique(line[:, 1])).max()
    assert widest == 1 if is_joined else widest > 50


def test_one_price_is_no_chart_and_equal_prices_are_one():
    assert draw_chart(by_hour(1.0), START, TEN, title="bitcoin", currency="usd") == b""
    line, _ = pixels(5, 5)
    assert np.ptp(line[:, 0]) < 12
