"""Asset events: which coins, rows and hours a task wrote, bounded in size (contract, section 4)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from airflow.sdk import Asset, AssetAlias, get_current_context

from coinwatch.times import floor_hour, format_time, parse_time

Extra = TypeVar("Extra", bound=Mapping[str, Any])

LISTED_MAX = 24
"""Coins, and hours, that an event lists."""


def publish(asset: Asset, added: Mapping[str, Sequence[str]]) -> None:
    """Describe the rows that the running task added, by coin and timestamp, in its event on an asset."""
    get_current_context()["outlet_events"][asset].extra = describe(added)


def publish_through(alias: AssetAlias, asset: Asset | Callable[[], Asset], extra: Extra) -> Extra:
    """Add an event to an asset through a task's outlet, unless its extra counts nothing; return the extra."""
    if any(extra.values()):
        event_of = asset if isinstance(asset, Asset) else asset()
        get_current_context()["outlet_events"][alias].add(event_of, extra=dict(extra))
    return extra


def describe(added: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return an event's extra: the first 24 ``coins``, how many ``rows``, and the newest 24 ``hours``."""
    coins = sorted(coin for coin, timestamps in added.items() if timestamps)
    timestamps = [timestamp for each in added.values() for timestamp in each]
    hours = sorted({format_time(floor_hour(parse_time(timestamp))) for timestamp in set(timestamps)})
    return {"coins": coins[:LISTED_MAX], "rows": len(timestamps), "hours": hours[-LISTED_MAX:]}
