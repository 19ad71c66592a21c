"""What a message says, of the market or of the pipeline itself: data in, words and Slack blocks out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from coinwatch.alerts.decide import Transition

HEADER_MAX = 150
"""Characters of a header block (Slack, Block Kit reference: header)."""

SECTION_MAX = 3000
"""Characters of a section block's text (Slack, Block Kit reference: section)."""

CONTEXT_MAX = 2000
"""Characters of a context element's text. Slack names no limit of its own; that of a section's field is safe."""

TEXT_MAX = 4000
"""Characters of the text of a message (Slack, chat.postMessage: recommended; 40,000 are cut off)."""

BLOCKS_MAX = 50
"""Blocks of a message (Slack, Block Kit reference: blocks)."""

ALERTS_SHOWN = 15
"""Alerts of a message that are told in full; the others get a line each."""

MINUS = "\N{MINUS SIGN}"

_SIGNS = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥"}

ENDS = ("resolved", "corrected")
"""What an incident ends with."""

_ICONS = {
    "warning": ":warning:",
    "critical": ":rotating_light:",
    "resolved": ":white_check_mark:",
    "corrected": ":information_source:",
}

_TITLES = {
    "firing": "Price alert",
    "worse": "Price alert, worse",
    "resolved": "Price alert, over",
    "corrected": "Price alert, corrected",
}

_TROUBLE_ICONS = {"begun": ":wrench:", "reminder": ":hourglass:", "over": ":white_check_mark:"}

_TROUBLE_STATES = {"begun": "began", "reminder": "is still there", "over": "is over"}


@dataclass(frozen=True, slots=True)
class SlackMessage:
    """A message for Slack.

    Attributes:
        text: For notifications, and where blocks are not shown.
        blocks: Block Kit.
    """

    text: str
    blocks: list[dict[str, Any]]


def format_price(price: float, currency: str) -> str:
    """A price for people: ``$63,940``, ``€12.50``, ``0.00000644 BTC``."""
    if price >= 1000:
        number = f"{price:,.0f}"
    elif price >= 1:
        number = f"{price:,.2f}"
    else:
        number = _significant(price, 4)
    sign = _SIGNS.get(currency)
    return f"{sign}{number}" if sign else f"{number} {currency.upper()}"


def _significant(value: float, digits: int) -> str:
    """A number with so many digits that count, and never with an exponent."""
    return f"{Decimal(f'{value:.{digits}g}'):f}"


def format_pct(value: float) -> str:
    """A change in percent for people, with a real minus sign: ``−13.03 %``."""
    return f"{value:+.2f} %".replace("-", MINUS)


def describe(turn: Transition, symbol: str) -> str:
    """One sentence that explains itself: what happened, how far it is, in what time, and against what is usual."""
    tell: dict[str, Callable[[Transition, str], str]] = {
        "spike_reverted": _describe_spike,
        "level_confirmed": _describe_level,
        "bad_value": _describe_bad_value,
        "stale": _describe_stale,
    }
    usual = _describe_move if turn.incident.is_open else _describe_end
    return tell.get(turn.note, usual)(turn, symbol)


def _describe_spike(turn: Transition, symbol: str) -> str:
    return f"{symbol} is back at {_price(turn)}: the move of {told_time(turn.incident.opened_at)} was a spike"


def _describe_level(turn: Transition, symbol: str) -> str:
    return f"{symbol} really is at {_price(turn)}: {turn.reason}, and what was held back is stored"


def _describe_bad_value(turn: Transition, symbol: str) -> str:
    if turn.incident.is_open:
        return f"{symbol}: a value of {turn.reason}; it is in quarantine, and nothing is computed from it"
    now = f", {_price(turn)}" if turn.price is not None else ""
    return f"{symbol} has a price again{now}: {turn.reason}; what was held back stays in quarantine"


def _describe_stale(turn: Transition, symbol: str) -> str:
    if turn.incident.is_open:
        return f"{symbol} stands still at {_price(turn)}: {turn.reason}"
    return f"{symbol} moves again, to {_price(turn)}"


def _price(turn: Transition) -> str:
    return "an unknown price" if turn.price is None else format_price(turn.price, turn.incident.currency)


def _describe_move(turn: Transition, symbol: str) -> str:
    hours = turn.hours or 0.0
    if turn.note in ("move_24h", "limit_24h") and hours == 24:
        time, span = "24 h", "day"
    elif hours <= 1.5:
        # Within the tolerance of the rule it is "the" hour.
        time, span = "1 h", "hour"
    else:
        time = span = f"{hours:.1f} h"
    told = f"{symbol} {format_pct(turn.change_pct or 0.0)} in {time} to {_price(turn)}"
    if turn.note in ("limit_1h", "limit_24h"):
        return f"{told}: beyond the fixed limit of {format_pct(turn.threshold_pct or 0.0)}"
    if turn.times_typical is None:
        return f"{told}: it had not moved before"
    return f"{told}: {turn.times_typical:.1f}× a usual {span} (usual is ±{_significant(turn.typical_pct or 0.0, 2)} %)"


def _describe_end(turn: Transition, symbol: str) -> str:
    told = f"{symbol} has calmed down at {_price(turn)}, {turn.hours or 0.0:.0f} h after the alert"
    if turn.change_pct is None:
        return told
    return f"{told} ({format_pct(turn.change_pct)} against the price before the move)"


@dataclass(frozen=True, slots=True)
class AlertNote:
    """A turn of an incident, as a message tells it.

    Attributes:
        id: Shown, so that a message that came twice is recognised.
        coin: CoinGecko id.
        rule: The rule that it is about.
        state: ``firing``, ``worse``, ``resolved`` or ``corrected``.
        severity: ``warning`` or ``critical``.
        message: What happened, in words and with the usual range.
        ts: Time of the price.
        value: How far it is, as ``threshold`` is measured; none where it is about no move.
        threshold: From where on the rule is broken; likewise.
        facts: The rule and how it is set.
        chart: The last hours as a line of text; may be empty.
    """

    id: str
    coin: str
    rule: str
    state: str
    severity: str
    message: str
    ts: datetime
    value: float | None
    threshold: float | None
    facts: str
    chart: str


@dataclass(frozen=True, slots=True)
class TroubleNote:
    """A turn of one of the pipeline's own troubles.

    Attributes:
        id: Shown, so that a message that came twice is recognised.
        state: ``begun``, ``reminder`` or ``over``.
        title: In a few words.
        what: What happened, and to whom.
        action: What to do; may be empty.
        link: The page to look at, if there is one.
        since: When it began.
        raised_at: When this was known.
    """

    id: str
    state: str
    title: str
    what: str
    action: str
    link: str | None
    since: datetime
    raised_at: datetime


def rule_facts(rule: str, threshold: float | None, setting: str) -> str:
    """The rule, from where on it is broken, and how it is set in the rules file."""
    told = f"Rule {rule}"
    if threshold is not None:
        told += f": from {format_pct(threshold)} on"
    return told + (f" ({setting})" if setting else "")


def alert_message(notes: Sequence[AlertNote], run_url: str, *, simulated: bool) -> SlackMessage:
    """What one run has to tell of the market: all of it in one message, the worst first.

    Args:
        notes: At least one.
        run_url: The run that found it.
        simulated: Whether the prices come from the sandbox.
    """
    ordered = sorted(notes, key=_urgency)
    mark = "[SIMULATED] " if simulated else ""
    if len(ordered) == 1:
        title = _TITLES[ordered[0].state]
    else:
        coins = len({note.coin for note in ordered})
        title = f"{len(ordered)} price alerts" + (f", {coins} coins" if coins > 1 else "")
    blocks = [_header(f"{mark}{title}")]
    blocks += [_section(_told(note)) for note in ordered[:ALERTS_SHOWN]]
    more = [f"{_ICONS[_look(note)]} {escape(note.message)}" for note in ordered[ALERTS_SHOWN:]]
    blocks += [_section(text) for text in _pages(more, limit=2)]
    if simulated:
        blocks.append(_section("Simulated prices (sandbox): nothing has happened in the real market."))
    ids = ", ".join(f"`{escape(note.id)}`" for note in ordered)
    blocks += [_context(f"<{run_url}|run> · {'alert' if len(ordered) == 1 else 'alerts'} {ids}")]
    return SlackMessage(_text(mark + " · ".join(note.message for note in ordered)), blocks)


def _urgency(note: AlertNote) -> tuple[bool, bool, float, str]:
    """Sorts what needs somebody before what does not, and the larger move before the smaller one."""
    times = abs(note.value / note.threshold) if note.value is not None and note.threshold else 0.0
    return (note.state in ENDS, note.severity != "critical", -times, note.id)


def worst_open(notes: Sequence[AlertNote]) -> AlertNote | None:
    """The alert that needs somebody most; none if all of them are about an end."""
    return min((note for note in notes if note.state not in ENDS), key=_urgency, default=None)


def _look(note: AlertNote) -> str:
    return note.state if note.state in ENDS else note.severity


def _told(note: AlertNote) -> str:
    worse = "Worse: " if note.state == "worse" else ""
    lines = [f"{_ICONS[_look(note)]} *{worse}{escape(note.message)}*"]
    if note.chart:
        lines.append(escape(note.chart))
    lines.append(f"{escape(note.facts)} · {note.severity} · {told_time(note.ts)}")
    return "\n".join(lines)


def trouble_message(notes: Sequence[TroubleNote], *, simulated: bool) -> SlackMessage:
    """What there is to tell of the pipeline itself; looks otherwise than anything about the market.

    Args:
        notes: At least one, of the same time.
        simulated: Whether this is the sandbox.
    """
    mark = "[SIMULATED] " if simulated else ""
    title = f"Coinwatch itself: {notes[0].title}" if len(notes) == 1 else f"Coinwatch itself: {len(notes)} troubles"
    if all(note.state == "over" for note in notes):
        title += " - over"
    blocks = [_header(f"{mark}{title}")]
    blocks += [_section(_told_trouble(note)) for note in notes[:ALERTS_SHOWN]]
    more = [f"{_TROUBLE_ICONS[note.state]} {escape(note.title)}" for note in notes[ALERTS_SHOWN:]]
    blocks += [_section(text) for text in _pages(more, limit=2)]
    blocks.append(_context("Not about the market · " + ", ".join(f"trouble `{escape(note.id)}`" for note in notes)))
    said = " · ".join(f"{note.title} ({_TROUBLE_STATES[note.state]})" for note in notes)
    return SlackMessage(_text(f"{mark}Coinwatch itself: {said}"), blocks)


def _told_trouble(note: TroubleNote) -> str:
    lines = [f"{_TROUBLE_ICONS[note.state]} *{escape(note.title)}*: {_TROUBLE_STATES[note.state]}", escape(note.what)]
    if note.action:
        lines.append(f"*What to do:* {escape(note.action)}")
    time = f"since {told_time(note.since)}"
    if note.state != "begun":
        time += f", {told_duration(note.since, note.raised_at)}"
    lines.append(time + (f" · <{note.link}|look>" if note.link else ""))
    return "\n".join(lines)


def summary_message(
    what: str, notes: Sequence[AlertNote] | Sequence[TroubleNote], hours: float, *, simulated: bool
) -> SlackMessage:
    """All that could not be told in time, in one message that names each.

    Args:
        what: ``alerts`` or ``messages about Coinwatch itself``.
        notes: At least one, the oldest first.
        hours: From what age on they come here.
        simulated: Whether the prices come from the sandbox.
    """
    mark = "[SIMULATED] " if simulated else ""
    text = f"{mark}{len(notes)} {what} from more than {hours:g} hours ago, which could not be delivered then"
    lines = [_summary_line(note) for note in notes]
    return SlackMessage(
        _text(text),
        [
            _header(f"{mark}Delivered late: {len(notes)} {what}"),
            _section(escape(text) + ". Each stands in the warehouse."),
            *(_section(page) for page in _pages(lines, limit=BLOCKS_MAX - 3)),
            _context(f"the first is `{escape(notes[0].id)}`"),
        ],
    )


def _summary_line(note: AlertNote | TroubleNote) -> str:
    if isinstance(note, TroubleNote):
        return f"• {told_time(note.raised_at)} {escape(note.title)}: {_TROUBLE_STATES[note.state]}"
    state = "" if note.state == "firing" else f"{note.state}: "
    return f"• {told_time(note.ts)} {state}{escape(note.message)}"


def _pages(lines: Sequence[str], limit: int) -> list[str]:
    """Lines in as many texts as Slack allows, each as long as a section may be; what is left over is counted."""
    pages: list[str] = []
    for number, line in enumerate(lines):
        # Room for the sentence about those that do not fit any more.
        short = clip(line, SECTION_MAX // 3)
        if pages and len(pages[-1]) + len(short) < SECTION_MAX - 100:
            pages[-1] += f"\n{short}"
        elif len(pages) < limit:
            pages.append(short)
        else:
            pages[-1] += f"\n… and {len(lines) - number} more, all in the warehouse"
            break
    return pages


def told_time(moment: datetime) -> str:
    """A time for people, to the minute."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def told_duration(since: datetime, until: datetime) -> str:
    """How long something has lasted, for people: ``5 h 10 min``."""
    hours, minutes = divmod(int((until - since).total_seconds() // 60), 60)
    if hours >= 48:
        return f"{hours // 24} days"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _header(text: str) -> dict[str, Any]:
    # A header takes plain text, where nothing has to be escaped.
    return {"type": "header", "text": {"type": "plain_text", "text": clip(text, HEADER_MAX)}}


def _context(text: str) -> dict[str, Any]:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": clip(text, CONTEXT_MAX)}]}


def _text(text: str) -> str:
    return clip(escape(text), TEXT_MAX)


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": clip(text, SECTION_MAX)}}


def clip(text: str, limit: int) -> str:
    """Shorten a text that Slack would refuse for its length."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def escape(text: str) -> str:
    """Take the three characters their meaning in Slack, so that no foreign text can call a channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
