"""Charts of the last hours: as text that every Slack shows, or as a PNG."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from io import BytesIO
from itertools import pairwise

from coinwatch.slack.wording import format_price

BARS = "▁▂▃▄▅▆▇█"

UNKNOWN = "·"
"""Where there is no price."""

GAP = timedelta(hours=2)
"""Prices that are further apart are not joined: the time between them is unknown."""

Point = tuple[datetime, float]
"""A time and a price."""


def sparkline(prices: Sequence[Point], start: datetime, end: datetime, *, width: int = 24) -> str:
    """Return prices in (start, end], ascending by time, as bars from the lowest to the highest.

    Each bar is the last price in its part of the time. Empty for less than two prices.
    """
    if len(prices) < 2:
        return ""
    low, high = min(price for _, price in prices), max(price for _, price in prices)
    # A time on an edge belongs to the part before it.
    last = {math.ceil((moment - start) * width / (end - start)) - 1: price for moment, price in prices}
    return "".join(_bar(last[part], low, high) if part in last else UNKNOWN for part in range(width))


def _bar(price: float, low: float, high: float) -> str:
    if high == low:
        return BARS[len(BARS) // 2]
    return BARS[round((price - low) / (high - low) * (len(BARS) - 1))]


def draw_chart(prices: Sequence[Point], start: datetime, end: datetime, *, title: str, currency: str) -> bytes:
    """Return prices in (start, end], ascending by time, as a PNG; empty for less than two prices."""
    if len(prices) < 2:
        return b""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(8, 4), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # NaN breaks the line.
    line: list[Point] = list(prices[:1])
    for (before, _), point in pairwise(prices):
        line += [(before, math.nan), point] if point[0] - before > GAP else [point]
    axes.plot([date2num(at) for at, _ in line], [price for _, price in line], ".-", color="#1264a3", linewidth=1.8)
    last, color = (date2num(prices[-1][0]), prices[-1][1]), "#e01e5a"
    axes.plot(*last, "o", color=color, clip_on=False)
    axes.annotate(f"  {format_price(last[1], currency)}", last, va="center", color=color, annotation_clip=False)
    axes.set_title(title, loc="left")
    axes.set_xlim(date2num(start), date2num(end))
    axes.margins(y=0.15)
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_price(value, currency) if value > 0 else "0"))
    axes.grid(color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    content = BytesIO()
    canvas.print_png(content)
    return content.getvalue()
