"""The chart of a backtest: the price, the range that the 24-hour rule allows, and the alerts."""

import io
from collections.abc import Mapping
from datetime import datetime

import numpy as np

from coinwatch.backtest.simulation import Simulation
from coinwatch.rules import DayMoveRule


def draw(results: Mapping[str, Simulation], title: str, begin: datetime, rule: DayMoveRule, file_format: str) -> bytes:
    """Return a chart from `begin` on as a PNG or SVG: of one or two sets of rules, the first of which has this rule."""
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
        # Moves are measured by logarithms.
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:,.6g}")
        axes.yaxis.set_minor_formatter("{x:,.6g}")
        axes.grid(color="#eeeeee", which="both")
        width = np.maximum(rule.sigmas * np.sqrt(shown["prior_variance"] * 24), rule.min_pct / 100)
        low, high = (shown["reference_24h_price"] * np.exp(side * width) for side in (-1, 1))
        axes.fill_between(shown["ts"], low, high, color="#bbdefb", alpha=0.6, lw=0, label="allowed by move_24h")
        axes.plot(shown["ts"], shown["price"], color="#1565c0", lw=1, label="price")
        bottom, top = axes.get_ylim()
        notes = sorted({alert.note for result in results.values() for alert in result.alerts})
        for result, filled in zip(results.values(), (True, False), strict=False):
            for number, note in enumerate(notes, start=1):
                alerts = [alert for alert in result.alerts if alert.note == note]
                # A value out of the range, such as ten times the price, is marked at the edge.
                prices = np.clip([alert.price or top for alert in alerts], bottom, top)
                axes.plot(
                    np.array([alert.ts for alert in alerts]),
                    prices,
                    f"C{number}o",
                    markersize=6 if filled else 10,
                    fillstyle="full" if filled else "none",
                    label=note if filled else None,
                    clip_on=False,
                )
        axes.set_ylim(bottom, top)
        axes.margins(x=0.01)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(axes.xaxis.get_major_locator()))
        figure.legend(loc="outside lower left", ncols=8, frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format=file_format, dpi=110)
    return content.getvalue()
