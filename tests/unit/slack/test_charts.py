from datetime import UTC, datetime, timedelta
from io import BytesIO

import numpy as np
import pytest
from matplotlib.image import imread

from coinwatch.slack.charts import draw_chart, sparkline

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
START = TEN - timedelta(hours=8)


def bars(*prices, width=8):
    """Draw prices on the full hours up to ten; None where there is none."""
    first = TEN - timedelta(hours=len(prices) - 1)
    points = [(first + timedelta(hours=number), price) for number, price in enumerate(prices) if price is not None]
    return sparkline(points, START, TEN, width=width)


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
    assert bars(*prices) == line


def test_the_time_span_excludes_its_left_edge_and_includes_its_right_edge():
    points = [(START - timedelta(hours=1), 99.0), (START, 99.0), (START + timedelta(seconds=1), 1.0), (TEN, 2.0)]
    points.append((TEN + timedelta(seconds=1), 99.0))
    assert sparkline(points, START, TEN, width=4) == "▁··█"


def test_a_bar_shows_the_last_price_of_its_part():
    assert bars(1, 2, 3, 4, 5, 6, 7, 8, width=2) == "▄█"


def pixels(*prices):
    """Draw prices on the full hours up to ten (None where there is none): the chart's line, and the last price."""
    first = TEN - timedelta(hours=len(prices) - 1)
    points = [(first + timedelta(hours=number), price) for number, price in enumerate(prices) if price is not None]
    png = draw_chart(points, START, TEN, title="bitcoin", currency="usd")
    red, green, blue = np.moveaxis(imread(BytesIO(png), format="png")[..., :3], -1, 0)
    line = np.argwhere((blue > 0.55) & (red < 0.2) & (green < 0.5))
    last = np.argwhere((red > 0.8) & (green < 0.3) & (blue < 0.5))
    return line, last


def test_a_chart_rises_with_the_price_and_marks_the_last_one():
    line, last = pixels(1, 2, 3, 4, 5, 6, 7, 8)
    columns = np.unique(line[:, 1])
    assert np.diff(columns).max() == 1
    assert line[line[:, 1] == columns[0], 0].mean() > 200
    assert line[line[:, 1] == columns[-8], 0].mean() < 100
    assert columns[-1] < last[:, 1].max()


def test_prices_more_than_two_hours_apart_are_not_joined():
    joined, _ = pixels(1, 2, None, 3, 4, 5, 6, 7)
    assert np.diff(np.unique(joined[:, 1])).max() == 1
    apart, _ = pixels(1, 2, None, None, 4, 5, 6, 7)
    assert np.diff(np.unique(apart[:, 1])).max() > 50


def test_one_price_is_no_chart_and_equal_prices_are_one():
    assert draw_chart([(TEN, 1.0)], START, TEN, title="bitcoin", currency="usd") == b""
    line, _ = pixels(5, 5)
    assert np.ptp(line[:, 0]) < 12
