"""Slack messages: data in, text and Block Kit blocks within Slack's limits out."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from coinwatch.slack.charts import Point, sparkline
from coinwatch.slack.wording import format_duration, format_pct, format_price, format_utc

# Characters by block (Slack, Block Kit reference). It documents no limit of a context element: a field's is safe.
HEADER_MAX = 150
SECTION_MAX = 3000
CONTEXT_MAX = 2000

TEXT_MAX = 4000
"""Characters of a message's text (Slack, chat.postMessage: recommended; 40,000 are cut off)."""

BLOCKS_MAX = 50
"""Blocks of a message (Slack, Block Kit reference: blocks)."""

SHOWN_MAX = 15
"""Alerts or issues of a message that are shown in full; the others get a line each."""

CHART_SPAN = timedelta(hours=24)

_ICONS = {
    "warning": ":warning:",
    "critical": ":rotating_light:",
    "resolved": ":white_check_mark:",
    "corrected": ":information_source:",
}

_TITLES = {
    "firing": "Price alert",
    "worse": "Price alert, worse",
    "resolved": "Price alert, resolved",
    "corrected": "Price alert, corrected",
}

_ISSUE_ICONS = {"open": ":wrench:", "reminder": ":hourglass:", "resolved": ":white_check_mark:"}

_ISSUE_STATES = {"open": "opened", "reminder": "still open", "resolved": "resolved"}


@dataclass(frozen=True, slots=True)
class SlackMessage:
    """A message; ``text`` is for notifications, and where blocks are not shown."""

    text: str
    blocks: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class AlertView:
    """An alert as a message shows it: columns of ``alerts``, its rule's settings, and the prices of the day before."""

    id: str
    coin: str
    currency: str
    rule: str
    state: str
    severity: str
    message: str
    ts: datetime
    value: float | None
    threshold: float | None
    settings: str = ""
    prices: Sequence[Point] = ()

    @property
    def is_end(self) -> bool:
        """Whether it ends its incident."""
        return self.state in ("resolved", "corrected")

    @property
    def icon(self) -> str:
        """What marks it in a message."""
        return _ICONS[self.state if self.is_end else self.severity]


@dataclass(frozen=True, slots=True)
class IssueView:
    """A pipeline issue as a message shows it.

    Attributes:
        id: Identifies a message that came twice; empty if the warehouse does not know the issue.
        state: ``open``, ``reminder`` or ``resolved``.
        at: Time of the message.
    """

    id: str
    state: str
    title: str
    detail: str
    action: str
    link: str | None
    opened_at: datetime
    at: datetime


def alert_message(alerts: Sequence[AlertView], run_url: str, *, simulated: bool) -> SlackMessage:
    """Return one message with all alerts of one run, the worst first."""
    ordered = sorted(alerts, key=_urgency)
    if len(ordered) == 1:
        title = _TITLES[ordered[0].state]
    else:
        coins = len({alert.coin for alert in ordered})
        title = f"{len(ordered)} price alerts" + (f", {coins} coins" if coins > 1 else "")
    blocks = [_section(_show_alert(alert)) for alert in ordered[:SHOWN_MAX]]
    blocks += _pages([f"{alert.icon} {escape(alert.message)}" for alert in ordered[SHOWN_MAX:]], limit=2)
    if simulated:
        blocks.append(_section("Simulated prices (sandbox): nothing happened in the real market."))
    ids = ", ".join(f"`{escape(alert.id)}`" for alert in ordered)
    footer = f"<{run_url}|run> · {'alert' if len(ordered) == 1 else 'alerts'} {ids}"
    return _message(title, " · ".join(alert.message for alert in ordered), blocks, footer, simulated=simulated)


def worst_open(alerts: Sequence[AlertView]) -> AlertView | None:
    """Return the most urgent alert; None if all of them end their incident."""
    return min((alert for alert in alerts if not alert.is_end), key=_urgency, default=None)


def _urgency(alert: AlertView) -> tuple[bool, bool, float, str]:
    """Sort alerts that need an operator before ends, critical before warning, larger moves before smaller ones."""
    times = abs(alert.value / alert.threshold) if alert.value is not None and alert.threshold else 0.0
    return (alert.is_end, alert.severity != "critical", -times, alert.id)


def _show_alert(alert: AlertView) -> str:
    worse = "Worse: " if alert.state == "worse" else ""
    lines = [f"{alert.icon} *{worse}{escape(alert.message)}*"]
    if bars := sparkline(alert.prices, alert.ts - CHART_SPAN, alert.ts):
        low, high = (format_price(pick(price for _, price in alert.prices), alert.currency) for pick in (min, max))
        lines.append(f"{bars} 24 h, {low} to {high}")
    limit = "" if alert.threshold is None else f": from {format_pct(alert.threshold)} on"
    settings = f" ({escape(alert.settings)})" if alert.settings else ""
    lines.append(f"Rule {escape(alert.rule)}{limit}{settings} · {alert.severity} · {format_utc(alert.ts)}")
    return "\n".join(lines)


def issue_message(issues: Sequence[IssueView], *, simulated: bool) -> SlackMessage:
    """Return one message with pipeline issues; it looks different from anything about the market."""
    resolved = " resolved" if all(issue.state == "resolved" for issue in issues) else ""
    title = f"Pipeline issue{resolved}: {issues[0].title}"
    if len(issues) > 1:
        title = f"{len(issues)} pipeline issues{resolved}"
    blocks = [_section(_show_issue(issue)) for issue in issues[:SHOWN_MAX]]
    more = [f"{_ISSUE_ICONS[issue.state]} {escape(issue.title)}" for issue in issues[SHOWN_MAX:]]
    blocks += _pages(more, limit=2)
    ids = ", ".join(f"issue `{escape(issue.id)}`" if issue.id else "sent without the warehouse" for issue in issues)
    states = " · ".join(f"{issue.title} ({_ISSUE_STATES[issue.state]})" for issue in issues)
    return _message(title, f"Pipeline issue: {states}", blocks, f"Not about the market · {ids}", simulated=simulated)


def _show_issue(issue: IssueView) -> str:
    lines = [f"{_ISSUE_ICONS[issue.state]} *{escape(issue.title)}*: {_ISSUE_STATES[issue.state]}", escape(issue.detail)]
    if issue.action:
        lines.append(f"*What to do:* {escape(issue.action)}")
    since = f"since {format_utc(issue.opened_at)}"
    if issue.state != "open":
        since += f", {format_duration(issue.opened_at, issue.at)}"
    lines.append(since + (f" · <{issue.link}|details>" if issue.link else ""))
    return "\n".join(lines)


def summary_message(alerts: Sequence[AlertView], hours: float, *, simulated: bool) -> SlackMessage:
    """Return one message that lists alerts which are older than this many hours, the oldest first."""
    text = f"{len(alerts)} alerts from more than {hours:g} hours ago, which could not be delivered then"
    lines = [
        f"• {format_utc(alert.ts)} {'' if alert.state == 'firing' else f'{alert.state}: '}{escape(alert.message)}"
        for alert in alerts
    ]
    blocks = [_section(f"{text}. All of them are in the warehouse."), *_pages(lines, limit=BLOCKS_MAX - 3)]
    footer = f"the first is `{escape(alerts[0].id)}`"
    return _message(f"Delivered late: {len(alerts)} alerts", text, blocks, footer, simulated=simulated)


def _message(title: str, text: str, blocks: list[dict[str, Any]], footer: str, *, simulated: bool) -> SlackMessage:
    mark = "[SIMULATED] " if simulated else ""
    # A header is plain text: nothing to escape.
    header = {"type": "header", "text": {"type": "plain_text", "text": clip(f"{mark}{title}", HEADER_MAX)}}
    context = {"type": "context", "elements": [{"type": "mrkdwn", "text": clip(footer, CONTEXT_MAX)}]}
    return SlackMessage(clip(escape(f"{mark}{text}"), TEXT_MAX), [header, *blocks, context])


def _pages(lines: Sequence[str], limit: int) -> list[dict[str, Any]]:
    """Return lines in at most this many sections; lines that do not fit are counted."""
    pages: list[str] = []
    for number, line in enumerate(lines):
        # Leaves room for the count.
        short = clip(line, SECTION_MAX // 3)
        if pages and len(pages[-1]) + len(short) < SECTION_MAX - 100:
            pages[-1] += f"\n{short}"
        elif len(pages) < limit:
            pages.append(short)
        else:
            pages[-1] += f"\n… and {len(lines) - number} more, all in the warehouse"
            break
    return [_section(page) for page in pages]


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": clip(text, SECTION_MAX)}}


def clip(text: str, limit: int) -> str:
    """Shorten a text that is too long for Slack."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def escape(text: str) -> str:
    """Escape Slack's three control characters, so that no foreign text can mention a channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
