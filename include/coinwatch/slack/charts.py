"""A small picture of the last hours: as text that every Slack shows, or as a PNG."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

BARS = "▁▂▃▄▅▆▇█"

UNKNOWN = "·"
"""Where there was no price: that is no low price."""

WIDTH, HEIGHT, MARGIN = 640, 240, 16
"""Of the picture, in pixels."""

GAP = timedelta(hours=2)
"""Between prices that are further apart nothing is drawn: what was there is unknown."""

_COLORS = (b"\xff\xff\xff", b"\xdd\xdd\xdd", b"\x1d\x9b\xd1", b"\xe0\x1e\x5a")
_GRID, _LINE, _LAST = 1, 2, 3

Point = tuple[datetime, float]
"""A time and a price."""


def sparkline(points: Sequence[Point], start: datetime, end: datetime, *, width: int = 24) -> str:
    """Draw prices as a line of bars, from the lowest to the highest of them.

    Args:
        points: In the order of time; those in (start, end] are drawn.
        start: The left end.
        end: The right end.
        width: Bars; each stands for the last price in its part of the time.

    Returns:
        So many characters; empty if there is nothing to see, which takes two prices.
    """
    drawn = [(moment, price) for moment, price in points if start < moment <= end]
    if len(drawn) < 2:
        return ""
    low, high = min(price for _, price in drawn), max(price for _, price in drawn)
    last: dict[int, float] = {}
    for moment, price in drawn:
        last[_part(moment, start, end, width)] = price
    return "".join(_bar(last[part], low, high) if part in last else UNKNOWN for part in range(width))


def _part(moment: datetime, start: datetime, end: datetime, width: int) -> int:
    # (start, end]: what lies on an edge belongs to the part before it.
    share = (moment - start) / (end - start)
    part = int(share * width)
    return part - 1 if part == share * width else part


def _bar(price: float, low: float, high: float) -> str:
    if high == low:
        return BARS[len(BARS) // 2]
    return BARS[round((price - low) / (high - low) * (len(BARS) - 1))]


def picture(points: Sequence[Point], start: datetime, end: datetime) -> bytes:
    """Draw prices as a line, from the lowest at the bottom to the highest at the top; the last one has a mark.

    Args:
        points: In the order of time; those in (start, end] are drawn.
        start: The left end.
        end: The right end.

    Returns:
        A PNG, as Slack shows it; empty if there is nothing to see, which takes two prices.
    """
    drawn = [(moment, price) for moment, price in points if start < moment <= end]
    if len(drawn) < 2:
        return b""
    low, high = min(price for _, price in drawn), max(price for _, price in drawn)
    pixels = [bytearray(WIDTH) for _ in range(HEIGHT)]
    for quarter in range(5):
        row = MARGIN + quarter * (HEIGHT - 2 * MARGIN) // 4
        pixels[row][MARGIN : WIDTH - MARGIN] = bytes([_GRID]) * (WIDTH - 2 * MARGIN)

    def place(point: Point) -> tuple[int, int]:
        share = (point[1] - low) / (high - low) if high > low else 0.5
        column = MARGIN + round((point[0] - start) / (end - start) * (WIDTH - 2 * MARGIN - 1))
        return column, HEIGHT - MARGIN - 1 - round(share * (HEIGHT - 2 * MARGIN - 1))

    for before, after in pairwise(drawn):
        if after[0] - before[0] <= GAP:
            for x, y in _between(place(before), place(after)):
                _dot(pixels, x, y, 1, _LINE)
    for point in drawn:
        _dot(pixels, *place(point), 1, _LINE)
    _dot(pixels, *place(drawn[-1]), 4, _LAST)
    return _png(pixels)


def _between(start: tuple[int, int], end: tuple[int, int]) -> Iterator[tuple[int, int]]:
    steps = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
    for step in range(steps + 1):
        part = step / steps
        yield round(start[0] + (end[0] - start[0]) * part), round(start[1] + (end[1] - start[1]) * part)


def _dot(pixels: list[bytearray], x: int, y: int, size: int, color: int) -> None:
    for row in pixels[max(0, y - size) : y + size + 1]:
        left, right = max(0, x - size), min(WIDTH, x + size + 1)
        row[left:right] = bytes([color]) * (right - left)


def _png(pixels: Sequence[bytearray]) -> bytes:
    """A PNG of a palette's colors (PNG specification, 11: IHDR, PLTE, IDAT, IEND)."""
    header = struct.pack(">IIBBBBB", len(pixels[0]), len(pixels), 8, 3, 0, 0, 0)
    # Each line begins with the number of its filter: none.
    content = zlib.compress(b"".join(b"\0" + line for line in pixels), 9)
    chunks = ((b"IHDR", header), (b"PLTE", b"".join(_COLORS)), (b"IDAT", content), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
