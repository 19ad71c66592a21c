"""The command: run one or two sets of rules over known prices, and show the alerts in a table, a list and a chart."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from coinwatch.backtest.chart import draw
from coinwatch.backtest.simulation import Simulation, simulate
from coinwatch.errors import InvalidAction
from coinwatch.files import replace_file
from coinwatch.quarantine.screening import Value
from coinwatch.rules import RuleBook
from coinwatch.slack.wording import describe, format_utc

WEEK = timedelta(weeks=1)

LISTED = 40
"""The newest alerts are listed, at most this many."""


def parse_changes(texts: Sequence[str]) -> dict[str, Any]:
    """Read options such as ``move_1h.sigmas=5``."""
    changes = {}
    for text in texts:
        key, _, value = text.partition("=")
        try:
            changes[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            value = ""
        if not key.strip() or not value.strip():
            raise InvalidAction(f"--set {text}: write a key of the rules and a value: --set move_1h.sigmas=5")
    return changes


def backtest(
    values: Sequence[Value],
    coin: str,
    currency: str,
    days: float,
    rules: RuleBook,
    changes: Mapping[str, Any],
    chart: Path,
) -> None:
    """Show the alerts that rules, and changed rules, raise on a coin's values in the last days of them."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    file_format = chart.suffix.removeprefix(".").lower()
    if file_format not in ("png", "svg"):
        raise InvalidAction(f"--chart {chart}: the file has to end in .png or .svg")
    if not values:
        raise InvalidAction(f"no price of {coin} in {currency}: run ingest_prices first, or give a file with --csv")
    begin = max(values[-1].ts - timedelta(days=days), values[0].ts)
    weeks = max((values[-1].ts - begin) / WEEK, 1 / 168)
    console.print(f"{coin}: {len(values):,} values from {format_utc(values[0].ts)} to {format_utc(values[-1].ts)}")
    console.print(f"alerts count from {format_utc(begin)} on, {weeks:.1f} weeks; older values teach the typical move")
    books = {"present rules": rules}
    if changes:
        books[", ".join(f"{key}={value}" for key, value in changes.items())] = rules.changed(coin, changes)
    results = {}
    for name, book in books.items():
        result = simulate(values, coin, currency, book)
        results[name] = replace(result, transitions=[each for each in result.transitions if each.ts >= begin])
    console.print(_table(results, weeks))
    for name, result in results.items():
        alerts = result.alerts
        console.print(f"{name}: {len(alerts)} alerts{f', the newest {LISTED}' if len(alerts) > LISTED else ''}")
        for alert in alerts[-LISTED:]:
            console.print(f"  {alert.ts:%Y-%m-%d %H:%M}  {alert.severity:<8}  {describe(alert, rules.symbol(coin))}")
    title = f"{coin} in {currency}, {begin:%Y-%m-%d %H:%M} to {values[-1].ts:%Y-%m-%d %H:%M}"
    try:
        replace_file(chart, draw(results, title, begin, rules.for_coin(coin).move_24h, file_format))
    except OSError as error:
        raise InvalidAction(f"--chart {chart}: cannot write it: {error.strerror}") from None
    console.print(f"chart: {chart}")


def _table(results: Mapping[str, Simulation], weeks: float) -> Table:
    """Return how often each rule raised and resolved alerts, for each set of rules."""
    table = Table("rule", "state", *results)
    counts = [Counter((each.note, each.incident.state) for each in result.transitions) for result in results.values()]
    for note, state in sorted({key for count in counts for key in count}):
        table.add_row(note, state, *(_frequency(count[note, state], weeks) for count in counts))
    table.add_section()
    table.add_row("alerts", "", *(_frequency(len(result.alerts), weeks) for result in results.values()))
    return table


def _frequency(number: int, weeks: float) -> str:
    return f"{number} ({number / weeks:.2f} a week)"
