"""The rule ``stale``: a price that does not change from poll to poll, or was old when it was fetched. Pure."""

from collections.abc import Mapping
from typing import Any

from coinwatch.rules import StaleRule
from coinwatch.times import hours_from


def stale_reason(row: Mapping[str, Any], rule: StaleRule) -> str:
    """Return why a live price is stale, in words; empty if it is not.

    Args:
        row: Its row of ``price_statistics``, and ``age_minutes``: how old the price was at the poll, None if unknown.
        rule: Of its coin.
    """
    age, polls = row["age_minutes"], row["unchanged_polls"]
    if age is not None and age > rule.age_minutes:
        return f"CoinGecko's price was {age:.0f} minutes old when it was fetched"
    hours = hours_from(row["unchanged_since"], row["ts"])
    if polls >= rule.polls and hours >= rule.min_hours:
        return f"{polls:.0f} polls in a row had exactly this price, over {hours:.0f} hours"
    return ""
