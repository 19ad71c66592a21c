import struct
import zlib
from datetime import UTC, datetime, timedelta

import pytest

from coinwatch.slack.charts import GAP, HEIGHT, MARGIN, WIDTH, picture, sparkline

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


def pixels(png):
    """The picture's lines of palette numbers, read as any viewer does."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, rest = {}, png[8:]
    while rest:
        (length,) = struct.unpack(">I", rest[:4])
        name, data = rest[4:8], rest[8 : 8 + length]
        assert struct.unpack(">I", rest[8 + length : 12 + length])[0] == zlib.crc32(name + data)
        chunks[name], rest = data, rest[12 + length :]
    assert list(chunks) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    width, height, *kind = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert kind == [8, 3, 0, 0, 0]
    assert len(chunks[b"PLTE"]) == 4 * 3
    content = zlib.decompress(chunks[b"IDAT"])
    lines = [content[start : start + width + 1] for start in range(0, len(content), width + 1)]
    assert {line[0] for line in lines} == {0}
    assert (len(lines), width) == (height, WIDTH)
    return [line[1:] for line in lines]


def columns(lines, color):
    return sorted({x for line in lines for x, pixel in enumerate(line) if pixel == color})


def test_a_picture_goes_from_the_lowest_to_the_highest_price_and_marks_the_last():
    points = [(TEN - timedelta(hours=number), 100.0 - number) for number in reversed(range(8))]
    lines = pixels(picture(points, START, TEN))
    last = [(x, y) for y, line in enumerate(lines) for x, pixel in enumerate(line) if pixel == 3]
    assert (min(last), max(last)) == (
        (WIDTH - MARGIN - 5, MARGIN - 4),
        (WIDTH - MARGIN + 3, MARGIN + 4),
    )
    drawn = [y for y, line in enumerate(lines) if 2 in line]
    assert max(drawn) == HEIGHT - MARGIN
    # One line without a hole in it, from the first price on.
    line = columns(lines, 2)
    assert line == list(range(line[0], line[-1] + 1))


def test_where_prices_are_missing_the_picture_has_a_hole():
    points = [(TEN - timedelta(hours=6), 1.0), (TEN - timedelta(hours=5), 2.0), (TEN, 1.5)]
    lines = pixels(picture(points, START, TEN))
    assert max(columns(lines, 2)) < WIDTH // 2
    assert min(columns(lines, 3)) > WIDTH - MARGIN - 6
    near = [(TEN - GAP, 2.0), (TEN, 1.5)]
    assert max(columns(pixels(picture(near, START, TEN)), 2)) > WIDTH - MARGIN - 8


def test_one_price_is_no_picture_and_a_price_that_stands_still_is_a_line_in_the_middle():
    assert picture([(TEN, 1.0)], START, TEN) == b""
    lines = pixels(picture([(TEN - timedelta(hours=1), 5.0), (TEN, 5.0)], START, TEN))
    drawn = [y for y, line in enumerate(lines) if 2 in line]
    assert abs(sum(drawn) / len(drawn) - HEIGHT / 2) <= 1
