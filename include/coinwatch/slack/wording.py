"""The words of a notification: prices, percents, times, durations, and the sentence of a transition."""

from datetime import datetime
from decimal import Decimal

from coinwatch.alerts.decide import Transition

MINUS = "\N{MINUS SIGN}"

_SIGNS = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥"}


def format_price(price: float, currency: str) -> str:
    """Return a price for people: ``$63,940``, ``€12.50``, ``0.00000644 BTC``."""
    if price >= 1000:
        number = f"{price:,.0f}"
    elif price >= 1:
        number = f"{price:,.2f}"
    else:
        number = _significant(price, 4)
    sign = _SIGNS.get(currency)
    return f"{sign}{number}" if sign else f"{number} {currency.upper()}"


def format_pct(value: float) -> str:
    """Return a change in percent with a real minus sign: ``−13.03 %``."""
    return f"{value:+.2f} %".replace("-", MINUS)


def format_utc(moment: datetime) -> str:
    """Return a time to the minute: ``2026-11-22 10:00 UTC``."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def format_duration(since: datetime, until: datetime) -> str:
    """Return how long something lasted: ``5 h 10 min``."""
    hours, minutes = divmod(int((until - since).total_seconds() // 60), 60)
    if hours >= 48:
        return f"{hours // 24} days"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _significant(value: float, digits: int) -> str:
    """Return a number with this many significant digits and no exponent."""
    return f"{Decimal(f'{value:.{digits}g}'):f}"


def describe(transition: Transition, symbol: str) -> str:
    """Return one sentence: what happened, how far from typical, and in what time."""
    incident, note, reason = transition.incident, transition.note, transition.reason
    is_open = incident.is_open
    price = "an unknown price" if transition.price is None else format_price(transition.price, incident.currency)
    if note == "spike_reverted":
        return f"{symbol}: back at {price}, the move of {format_utc(incident.opened_at)} was a spike"
    if note == "level_confirmed":
        return f"{symbol}: new level of {price} confirmed, {reason}; the quarantined values are stored"
    if note == "bad_value":
        if is_open:
            return f"{symbol}: {reason}; nothing is computed from it"
        now = "resolved" if transition.price is None else f"price accepted again at {price}"
        return f"{symbol}: {now}, {reason}; rejected values stay in quarantine"
    if note == "stale":
        return f"{symbol}: stale price, {price}: {reason}" if is_open else f"{symbol}: price moves again, {price}"
    return _describe_move(transition, symbol, price)


def _describe_move(transition: Transition, symbol: str, price: str) -> str:
    hours, change = transition.hours or 0.0, format_pct(transition.change_pct or 0.0)
    if not transition.incident.is_open:
        return f"{symbol}: resolved at {price}, {hours:.0f} h after the alert ({change} from the price before the move)"
    if transition.note in ("move_24h", "limit_24h") and hours == 24:
        span = "24 h"
    elif hours <= 1.5:
        # Within the tolerance of the hourly rule.
        span = "1 h"
    else:
        span = f"{hours:.1f} h"
    moved = f"{symbol} {change} in {span} to {price}"
    if transition.note in ("limit_1h", "limit_24h"):
        return f"{moved}: beyond the fixed limit of {format_pct(transition.threshold_pct or 0.0)}"
    if transition.times_typical is None:
        return f"{moved}: it had not moved before"
    typical = _significant(transition.typical_pct or 0.0, 2)
    return f"{moved}: {transition.times_typical:.1f}× the typical {span} move of ±{typical} %"
