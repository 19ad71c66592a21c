"""Charts of the last hours: as text that every Slack shows, or as a PNG."""

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


def sparkline(points: Sequence[Point], start: datetime, end: datetime, *, width: int = 24) -> str:
    """Return the prices in (start, end] as bars from the lowest to the highest; empty for less than two prices.

    Args:
        points: Ascending by time.
        start: The left end.
        end: The right end.
        width: Number of bars; each shows the last price in its part of the time.
    """
    shown = [(moment, price) for moment, price in points if start < moment <= end]
    if len(shown) < 2:
        return ""
    low, high = min(price for _, price in shown), max(price for _, price in shown)
    last = {_part(moment, start, end, width): price for moment, price in shown}
    return "".join(_bar(last[part], low, high) if part in last else UNKNOWN for part in range(width))


def _part(moment: datetime, start: datetime, end: datetime, width: int) -> int:
    # (start, end]: a time on an edge belongs to the part before it.
    share = (moment - start) / (end - start)
    part = int(share * width)
    return part - 1 if part == share * width else part


def _bar(price: float, low: float, high: float) -> str:
    if high == low:
        return BARS[len(BARS) // 2]
    return BARS[round((price - low) / (high - low) * (len(BARS) - 1))]


def draw_chart(points: Sequence[Point], start: datetime, end: datetime, *, title: str, currency: str) -> bytes:
    """Return the prices in (start, end] as a PNG; empty for less than two prices."""
    shown = [(moment, price) for moment, price in points if start < moment <= end]
    if len(shown) < 2:
        return b""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(8, 4), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # NaN breaks the line.
    line: list[tuple[datetime, float]] = shown[:1]
    for (before, _), point in pairwise(shown):
        line += [(before, float("nan")), point] if point[0] - before > GAP else [point]
    axes.plot([date2num(at) for at, _ in line], [price for _, price in line], ".-", color="#1264a3", linewidth=1.8)
    for label, pick, offset in (("lowest", min, -14), ("highest", max, 7)):
        at, price = pick(shown, key=lambda point: point[1])
        share = (at - start) / (end - start)
        axes.annotate(
            f"{label} {format_price(price, currency)}",
            (date2num(at), price),
            (0, offset),
            textcoords="offset points",
            ha="left" if share < 0.2 else "right" if share > 0.8 else "center",
            color="#616061",
        )
    last, color = (date2num(shown[-1][0]), shown[-1][1]), "#e01e5a"
    axes.plot(*last, "o", color=color, clip_on=False)
    axes.annotate(
        format_price(last[1], currency),
        last,
        (8, 0),
        textcoords="offset points",
        va="center",
        color=color,
        annotation_clip=False,
    )
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
