"""A small picture of the last hours: as text that every Slack shows, or as a PNG."""

from collections.abc import Sequence
from datetime import datetime

BARS = "▁▂▃▄▅▆▇█"

UNKNOWN = "·"
"""Where there was no price: that is no low price."""

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
