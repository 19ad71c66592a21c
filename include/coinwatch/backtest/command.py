"""The command: reads values, lets one or two sets of rules see them, and tells and draws what came of it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from coinwatch.alerts.decide import Transition
from coinwatch.backtest.picture import Series, draw
from coinwatch.backtest.simulation import Simulation, simulate
from coinwatch.files import replace_file
from coinwatch.errors import RunError, WrongInput
from coinwatch.quarantine.screening import Value
from coinwatch.rules import RuleBook
from coinwatch.slack.messages import describe, told_time

WEEK = timedelta(weeks=1)

LISTED = 40
"""Alerts that are told one by one; of more only the newest."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One set of rules, and what came of it.

    Attributes:
        name: For the table.
        rules: The rules.
        simulation: What they would have told.
        told: What of that falls into the time that is asked for.
    """

    name: str
    rules: RuleBook
    simulation: Simulation
    told: list[Transition]


def parse_changes(texts: Sequence[str]) -> dict[str, Any]:
    """Read ``move_1h.sigmas=5`` and the like.

    Raises:
        WrongInput: It is no name and value.
    """
    changes = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise WrongInput(
                f"--set {text}: write the name of a rule's value, =, and the value: --set move_1h.sigmas=5"
            )
        try:
            changes[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise WrongInput(f"--set {text}: {value!r} is no value") from None
    return changes


def backtest(
    values: Sequence[Value],
    coin: str,
    currency: str,
    days: float,
    rules: RuleBook,
    changes: Mapping[str, Any],
    picture: Path,
    say: Callable[[str], None],
) -> None:
    """Tell what would have been told of the last days, and draw it; what is older teaches the usual move.

    Args:
        values: Of one coin, in the order of time.
        coin: CoinGecko id.
        currency: Quote currency.
        days: So many up to the newest value.
        rules: Today's.
        changes: Values of rules, by their names, for a second run beside the first.
        picture: File for the drawing (SVG).
        say: Tells the person at the terminal.

    Raises:
        RunError: There are no values.
        SettingsError: The rules do not allow a change.
    """
    if not values:
        raise RunError(f"there is no price of {coin} in {currency}: run ingest_prices first, or give a file with --csv")
    begin = max(values[-1].ts - timedelta(days=days), values[0].ts)
    weeks = max((values[-1].ts - begin) / WEEK, 1 / 168)
    say(f"{coin}: {len(values):,} values from {told_time(values[0].ts)} to {told_time(values[-1].ts)}")
    say(f"counted: {told_time(begin)} on, {weeks:.1f} weeks; what is older teaches the usual move")
    wanted = [("today's settings", rules)]
    if changes:
        name = ", ".join(f"{key}={value}" for key, value in changes.items())
        wanted.append((name, rules.changed(coin, changes)))
    variants = []
    for number, (name, book) in enumerate(wanted, start=1):
        say(f"{number} of {len(wanted)}: {name} …")
        simulation = simulate(values, coin, currency, book)
        told = [turn for turn in simulation.transitions if turn.ts >= begin]
        variants.append(Variant(name, book, simulation, told))
    say("")
    for line in table(variants, weeks):
        say(line)
    for variant in variants:
        say("")
        for line in listing(variant, coin):
            say(line)
    series = [Series(variant.name, variant.simulation.history, variant.told) for variant in variants]
    drawing = draw(series, coin, currency, begin, rules.for_coin(coin).move_24h)
    try:
        replace_file(picture, drawing.encode())
    except OSError as error:
        raise RunError(
            f"the picture cannot be written: {picture}: {error.strerror}; choose another place (--picture)"
        ) from None
    say("")
    say(f"picture: {picture}")


def table(variants: Sequence[Variant], weeks: float) -> list[str]:
    """How often each rule would have told what, for each set of rules."""
    lines = [f"{'rule':<16} {'told':<10}" + "".join(f"{_short(variant.name):>26}" for variant in variants)]
    counts = [Counter((turn.note, turn.incident.state) for turn in variant.told) for variant in variants]
    keys = sorted({key for count in counts for key in count})
    for note, state in keys:
        cells = [f"{count[note, state]:>10} {count[note, state] / weeks:>9.2f}/week" for count in counts]
        lines.append(f"{note:<16} {state:<10}" + "".join(cells))
    begun = [sum(number for (note, state), number in count.items() if state in ("firing", "worse")) for count in counts]
    lines.append(f"{'alerts':<16} {'':<10}" + "".join(f"{number:>10} {number / weeks:>9.2f}/week" for number in begun))
    return lines


def listing(variant: Variant, coin: str) -> list[str]:
    """The alerts of one set of rules, one by one; their ends are in the table."""
    turns = [turn for turn in variant.told if turn.incident.is_open]
    lines = [f"{variant.name}: {len(turns)} alerts" + (f", the newest {LISTED}:" if len(turns) > LISTED else "")]
    symbol = variant.rules.symbol(coin)
    return lines + [f"  {_time(turn.ts)}  {turn.severity:<8}  {describe(turn, symbol)}" for turn in turns[-LISTED:]]


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"


def _short(name: str) -> str:
    return name if len(name) <= 25 else f"{name[:24]}…"
