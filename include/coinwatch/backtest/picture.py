"""The picture of a backtest: the price, what the rule of the day allows, and where something would have been told.

A hand-made SVG: a line, a band and some marks need no library, and a browser shows it as sharp as it likes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

import numpy as np
import pandas as pd

from coinwatch.alerts.decide import Transition
from coinwatch.rules import DayMoveRule
from coinwatch.slack.wording import describe, format_price, format_utc

WIDTH, HEIGHT = 1200, 560
LEFT, RIGHT, TOP, BOTTOM = 80, 20, 64, 44
DAY = pd.Timedelta(days=1)

_COLOURS = {"firing": "#c62828", "worse": "#6a1b9a", "stale": "#616161", "bad_value": "#ef6c00"}

_STEPS = (
    ("h", "%H:%M", 1),
    ("6h", "%m-%d %H:%M", 6),
    ("D", "%m-%d", 24),
    ("7D", "%m-%d", 168),
    ("MS", "%Y-%m", 730),
    ("3MS", "%Y-%m", 2190),
    ("YS", "%Y", 8760),
    ("10YS", "%Y", math.inf),
)
"""Distances between the times at the axis: for pandas, how they are written, and about how many hours they are."""


@dataclass(frozen=True, slots=True)
class Series:
    """What one set of rules made of the prices.

    Attributes:
        name: For the legend.
        history: As ``Simulation`` has it.
        told: What would have been told.
    """

    name: str
    history: pd.DataFrame
    told: Sequence[Transition]


@dataclass(frozen=True, slots=True)
class _Scale:
    """From times and prices to places in the picture; prices are drawn by their logarithm, as moves are measured."""

    begin: float
    end: float
    low: float
    high: float

    def x(self, moment: float) -> float:
        return LEFT + (moment - self.begin) / max(self.end - self.begin, 1.0) * (WIDTH - LEFT - RIGHT)

    def y(self, price: float) -> float:
        part = (math.log(price) - self.low) / max(self.high - self.low, 1e-9)
        return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)


def draw(series: Sequence[Series], coin: str, currency: str, begin: datetime, rule: DayMoveRule) -> str:
    """Draw what was found, as an SVG document.

    Args:
        series: One or two; the first one's band is drawn.
        coin: For the title.
        currency: Of the prices.
        begin: From when on.
        rule: Says how wide the band is.
    """
    history = series[0].history
    shown = history[history["ts"] >= begin]
    if shown.empty:
        return _document([f'<text x="{LEFT}" y="{TOP}">{escape(coin)}: no prices in this time</text>'])
    band = _band(history, shown, rule)
    times = shown["ts"].map(lambda moment: moment.timestamp()).to_numpy(np.float64)
    prices = shown["price"].to_numpy(np.float64)
    lowest = min(float(prices.min()), float(np.nanmin(band[0], initial=math.inf)))
    highest = max(float(prices.max()), float(np.nanmax(band[1], initial=0.0)))
    scale = _Scale(times[0], times[-1], math.log(lowest) - 0.01, math.log(highest) + 0.01)
    title = f"{coin} in {currency}, {format_utc(shown['ts'].iloc[0])} to {format_utc(shown['ts'].iloc[-1])}"
    parts = [
        f'<text x="{LEFT}" y="24" class="title">{escape(title)}</text>',
        *_legend(series),
        *_axes(scale, currency),
        *_areas(times, *band, scale),
        f'<polyline class="price" points="{_points(times, prices, scale)}"/>',
    ]
    for number, each in enumerate(series):
        parts += [_mark(turn, each.name, scale, second=number == 1) for turn in each.told if turn.incident.is_open]
    return _document(parts)


def _band(history: pd.DataFrame, shown: pd.DataFrame, rule: DayMoveRule) -> tuple[np.ndarray, np.ndarray]:
    """What the rule of the day allows at each time: the price of a day ago, and so many usual days around it."""
    before = pd.merge_asof(
        pd.DataFrame({"ts": shown["ts"] - DAY}),
        history[["ts", "price"]],
        on="ts",
        direction="nearest",
        tolerance=pd.Timedelta(hours=1),
    )["price"].to_numpy(np.float64)
    usual = np.sqrt(shown["sigma_variance"].to_numpy(np.float64) * 24)
    width = np.maximum(rule.sigmas * usual, rule.min_pct / 100)
    return before * np.exp(-width), before * np.exp(width)


def _thin(count: int) -> np.ndarray:
    """Rows that are drawn: no more than there are dots on a line."""
    return np.unique(np.linspace(0, count - 1, min(count, 2 * WIDTH)).astype(int))


def _points(times: np.ndarray, prices: np.ndarray, scale: _Scale) -> str:
    return " ".join(f"{scale.x(times[row]):.1f},{scale.y(prices[row]):.1f}" for row in _thin(len(times)))


def _areas(times: np.ndarray, low: np.ndarray, high: np.ndarray, scale: _Scale) -> Iterator[str]:
    """The band, in one piece for each time in which it is known."""
    run: list[int] = []
    for row in [*_thin(len(times)).tolist(), None]:
        if row is not None and math.isfinite(low[row]) and math.isfinite(high[row]):
            run.append(row)
            continue
        if len(run) > 1:
            upper = [f"{scale.x(times[each]):.1f},{scale.y(high[each]):.1f}" for each in run]
            lower = [f"{scale.x(times[each]):.1f},{scale.y(low[each]):.1f}" for each in reversed(run)]
            yield f'<polygon class="band" points="{" ".join(upper + lower)}"/>'
        run = []


def _axes(scale: _Scale, currency: str) -> Iterator[str]:
    for price in _round_prices(math.exp(scale.low), math.exp(scale.high)):
        y = scale.y(price)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        told = escape(format_price(price, currency))
        yield f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{told}</text>'
    for moment, text in _round_times(scale.begin, scale.end):
        x = scale.x(moment)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 18}" text-anchor="middle">{text}</text>'


def _round_prices(low: float, high: float) -> list[float]:
    """About six prices that are easy to read: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _round_times(begin: float, end: float) -> list[tuple[float, str]]:
    """The beginnings of hours, days, months or years in a time, a dozen at most, and what stands below each."""
    first, last = (pd.Timestamp(moment, unit="s", tz="UTC") for moment in (begin, end))
    hours = (end - begin) / 3600
    step, form = next((step, form) for step, form, each in _STEPS if hours <= 12 * each)
    times = pd.date_range(first.normalize(), last, freq=step)
    return [(moment.timestamp(), moment.strftime(form)) for moment in times if moment >= first]


def _legend(series: Sequence[Series]) -> Iterator[str]:
    items = [("#1565c0", "price"), ("#bbdefb", "what the rule of the day allows"), (_COLOURS["firing"], "begins")]
    items += [(_COLOURS["worse"], "worse"), (_COLOURS["stale"], "stands still"), (_COLOURS["bad_value"], "held back")]
    x = LEFT
    for colour, text in items:
        yield f'<rect x="{x}" y="36" width="12" height="12" fill="{colour}"/>'
        yield f'<text class="tick" x="{x + 16}" y="46">{text}</text>'
        x += 36 + 6 * len(text)
    if len(series) > 1:
        names = escape(f"filled: {series[0].name}; hollow: {series[1].name}")
        yield f'<text class="tick" x="{x}" y="46">{names}</text>'


def _mark(turn: Transition, name: str, scale: _Scale, *, second: bool) -> str:
    moment = turn.ts.timestamp()
    inside = turn.price is not None and scale.low <= math.log(turn.price if turn.price > 0 else 1e-300) <= scale.high
    price = turn.price if inside and turn.price is not None else math.exp(scale.high)
    colour = _COLOURS.get(turn.incident.rule, _COLOURS[turn.incident.state])
    x, y, size = scale.x(moment), scale.y(price), 7 if second else 5
    fill = "none" if second else colour
    said = escape(f"{name}: {format_utc(turn.ts)}: {describe(turn, turn.incident.coin)}")
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" fill="{fill}" stroke="{colour}" stroke-width="2">'
        f"<title>{said}</title></circle>"
    )


def _document(parts: Sequence[str]) -> str:
    style = (
        "text{font-family:system-ui,sans-serif;fill:#212121}.title{font-size:18px;font-weight:600}.tick{font-size:12px}"
        ".grid{stroke:#eeeeee}.price{fill:none;stroke:#1565c0;stroke-width:1.3}.band{fill:#bbdefb;fill-opacity:.55}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">'
        f'<style>{style}</style><rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )
