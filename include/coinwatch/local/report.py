"""The status as text for the terminal."""

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from coinwatch.settings import Settings
from coinwatch.times import format_time

if TYPE_CHECKING:
    from coinwatch.status import AlertStatus, CoinStatus, Status

SHOWN = 5
"""Coins and alerts that are shown in full."""

_DELIVERY = {
    "delivered": "delivered to Slack",
    "pending": "not delivered yet",
    "not_configured": "stored; Slack is not configured",
}

_Lines = Iterator[tuple[str, str]]


def format_status(status: "Status", settings: Settings) -> str:
    """Return the status in lines of a label and a text."""
    return "\n".join(f"{label:<9} {text}" for label, text in _lines(status, settings))


def _lines(status: "Status", settings: Settings) -> _Lines:
    for coin in status.coins[:SHOWN]:
        yield from _coin(coin)
    if others := status.coins[SHOWN:]:
        yield "", f"… and {len(others):,} more coins with {sum(coin.rows for coin in others):,} rows"
    yield from _alerts(status.alerts)
    if settings.s3_bucket:
        counts = ", ".join(f"{number:,} {layer}" for layer, number in status.objects.items())
        yield "S3", f"s3://{settings.s3_bucket} has {counts} objects"
    else:
        yield "S3", "nothing is uploaded: COINWATCH_S3_BUCKET is empty"
    yield from (("Left", left) for left in status.left)
    yield from (("Issue", f"{issue.title}. {issue.detail} {issue.action}") for issue in status.issues)
    yield "Files", str(settings.archive_path)
    for name in settings.coins[:SHOWN]:
        yield "", str(settings.raw_path(name))
        yield "", str(settings.processed_path(name))
    if status.simulated:
        yield "Prices", "SIMULATED: nothing of this is real, and nothing left this machine"


def _coin(coin: "CoinStatus") -> _Lines:
    if coin.first is None or coin.last is None:
        yield coin.coin, "no rows"
        return
    days = (coin.last - coin.first) / timedelta(days=1)
    yield coin.coin, f"{coin.rows:,} rows from {format_time(coin.first)} to {format_time(coin.last)} ({days:.0f} days)"
    if coin.price is None:
        yield "", "no price as of this time"
        return
    yield "", f"price {_amount(coin.price)} {coin.currency.upper()} ({coin.source})"
    mean, deviation = _amount(coin.rolling_mean_24h), _amount(coin.rolling_std_24h)
    z = _number(coin.zscore_24h, "+.2f")
    yield "", f"24 hours: {coin.points_24h} rows, mean {mean}, standard deviation {deviation}, z-score {z}"
    hour, day = (_number(change, "+.2f", " %") for change in (coin.change_1h_pct, coin.change_24h_pct))
    typical = _number(coin.sigma_1h_pct, ".2f", " %")
    yield "", f"change in 1 hour {hour}, in 24 hours {day}; typical move in an hour {typical}"


def _alerts(alerts: "list[AlertStatus]") -> _Lines:
    yield "Alerts", f"{len(alerts)} in the last 24 hours" if alerts else "none in the last 24 hours"
    for alert in alerts[:SHOWN]:
        reason = f" ({alert.delivery_error})" if alert.delivery_error else ""
        yield "", f"{alert.severity}, {_DELIVERY.get(alert.delivery, alert.delivery)}{reason}: {alert.message}"
    if len(alerts) > SHOWN:
        yield "", f"… and {len(alerts) - SHOWN} more"


def _amount(value: float | None) -> str:
    return _number(value, ",.2f" if value is None or abs(value) >= 1 else ".6g")


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "unknown" if value is None else f"{value:{form}}{unit}"
