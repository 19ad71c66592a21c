"""What a market alert says: data in, words and Slack blocks out."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from coinwatch.analysis.anomalies import Anomaly

HEADER_MAX = 150
"""Characters of a header block (Slack, Block Kit reference: header)."""

SECTION_MAX = 3000
"""Characters of a section block's text (Slack, Block Kit reference: section)."""

MINUS = "\N{MINUS SIGN}"

_SIGNS = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥"}

_SEVERITY_ICONS = {"warning": ":warning:", "critical": ":rotating_light:"}


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


def describe(anomaly: Anomaly, symbol: str, currency: str) -> str:
    """One sentence that explains itself: what moved, how far, in what time, and against what is usual."""
    if anomaly.rule == "move_24h":
        time, span = "24 h", "day"
    elif anomaly.hours <= 1.5:
        # Within the tolerance of the rule it is "the" hour.
        time, span = "1 h", "hour"
    else:
        time = span = f"{anomaly.hours:.1f} h"
    told = f"{symbol} {format_pct(anomaly.change_pct)} in {time} to {format_price(anomaly.price, currency)}"
    if not anomaly.usual_pct:
        return f"{told}: it had not moved before"
    return f"{told}: {anomaly.times_usual:.1f}× a usual {span} (usual is ±{_significant(anomaly.usual_pct, 2)} %)"


def slack_message(
    *,
    alert_id: str,
    rule: str,
    severity: str,
    message: str,
    threshold_pct: float,
    ts: datetime,
    run_url: str,
    simulated: bool,
) -> SlackMessage:
    """A market alert for Slack.

    Args:
        alert_id: Shown, so that a message that came twice is recognised.
        rule: The rule that was broken.
        severity: ``warning`` or ``critical``.
        message: What happened, by ``describe``.
        threshold_pct: The move that the rule allows, in percent.
        ts: Time of the price.
        run_url: The run that raised the alert.
        simulated: Whether the prices come from the sandbox.
    """
    mark = "[SIMULATED] " if simulated else ""
    text = f"{mark}{message}"
    facts = f"Rule *{rule}*: from {format_pct(threshold_pct)} on · price of {ts:%Y-%m-%d %H:%M} UTC · <{run_url}|run>"
    if simulated:
        facts += "\nSimulated prices (sandbox): nothing has happened in the real market."
    return SlackMessage(
        text=escape(text),
        blocks=[
            # A header takes plain text, where nothing has to be escaped.
            {"type": "header", "text": {"type": "plain_text", "text": clip(f"{mark}Price alert", HEADER_MAX)}},
            _section(f"{_SEVERITY_ICONS[severity]} *{escape(message)}*"),
            _section(facts),
            {"type": "context", "elements": [{"type": "mrkdwn", "text": f"{severity} · alert `{escape(alert_id)}`"}]},
        ],
    )


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": clip(text, SECTION_MAX)}}


def clip(text: str, limit: int) -> str:
    """Shorten a text that Slack would refuse for its length."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def escape(text: str) -> str:
    """Take the three characters their meaning in Slack, so that no foreign text can call a channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
