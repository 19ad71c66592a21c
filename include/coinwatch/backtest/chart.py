"""The chart of a backtest: the price, the range that the 24-hour rule allows, and the alerts."""

import io
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from coinwatch.alerts.decide import Transition
from coinwatch.backtest.simulation import Simulation
from coinwatch.rules import DayMoveRule

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DAY = pd.Timedelta(days=1)

_COLORS = {"move": "#c62828", "worse": "#6a1b9a", "limit": "#2e7d32", "stale": "#616161", "quarantined": "#ef6c00"}


def draw(results: Mapping[str, Simulation], title: str, begin: datetime, rule: DayMoveRule, file_format: str) -> bytes:
    """Return a chart as a PNG or SVG.

    Args:
        results: The alerts of one or two sets of rules, by name: filled and hollow marks.
        title: The title.
        begin: Where the chart starts.
        rule: Of the first set: its allowed range is drawn.
        file_format: png or svg.
    """
    from matplotlib import dates
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.6), layout="constrained")
    axes = figure.subplots()
    if len(results) > 1:
        title += "\nfilled: {}; hollow: {}".format(*results)
    axes.set_title(title, loc="left")
    history = next(iter(results.values())).history
    shown = history[history["ts"] >= begin]
    if shown.empty:
        axes.text(0.5, 0.5, "no prices", transform=axes.transAxes, ha="center")
    else:
        low, high = _allowed(history, shown, rule)
        axes.fill_between(shown["ts"], low, high, color="#bbdefb", alpha=0.6, lw=0, label="allowed by move_24h")
        axes.plot(shown["ts"], shown["price"], color="#1565c0", lw=1, label="price")
        _mark_alerts(axes, results)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(axes.xaxis.get_major_locator()))
        figure.legend(loc="outside lower left", ncols=8, frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format=file_format, dpi=110)
    return content.getvalue()


def _mark_alerts(axes: "Axes", results: Mapping[str, Simulation]) -> None:
    # Moves are measured by logarithms.
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:,.6g}")
    axes.yaxis.set_minor_formatter("{x:,.6g}")
    axes.grid(color="#eeeeee", which="both")
    bottom, top = axes.get_ylim()
    for result, filled, size in zip(results.values(), (True, False), (30, 90), strict=False):
        for kind, color in _COLORS.items():
            alerts = [each for each in result.alerts if _kind(each) == kind]
            # A value out of the range, such as ten times the price, is marked at the edge.
            prices = [min(max(alert.price or top, bottom), top) for alert in alerts]
            style: dict[str, Any] = {
                "facecolor": color if filled else "none",
                "edgecolor": color,
                "label": kind if filled else None,
            }
            axes.scatter(np.array([alert.ts for alert in alerts]), prices, s=size, zorder=3, clip_on=False, **style)
    axes.set_ylim(bottom, top)
    axes.margins(x=0.01)


def _kind(alert: Transition) -> str:
    rule = alert.incident.rule
    if rule in ("stale", "bad_value"):
        return "stale" if rule == "stale" else "quarantined"
    return "limit" if rule.startswith("limit") else "worse" if alert.incident.state == "worse" else "move"


def _allowed(history: pd.DataFrame, shown: pd.DataFrame, rule: DayMoveRule) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest price that the 24-hour rule allows at each time; NaN where it is unknown."""
    day_before = pd.merge_asof(
        pd.DataFrame({"ts": shown["ts"] - DAY}),
        history[["ts", "price"]],
        on="ts",
        direction="nearest",
        tolerance=pd.Timedelta(hours=1),
    )["price"].to_numpy(np.float64)
    sigma = np.sqrt(shown["sigma_variance"].to_numpy(np.float64) * 24)
    width = np.maximum(rule.sigmas * sigma, rule.min_pct / 100)
    return day_before * np.exp(-width), day_before * np.exp(width)
