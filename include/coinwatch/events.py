"""What an asset's event tells: how many rows were added to it, and of which hours (contract, section 4)."""

from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import Asset

from coinwatch.times import floor_hour, format_time, parse_time


def publish_added(added: Mapping[str, Sequence[str]], assets: Sequence[Asset], context: Any) -> None:
    """Tell with the event of each coin's raw log what a task added to it.

    Args:
        added: Timestamps of the rows that were added, by coin.
        assets: The task's outlets, named ``<coin>_raw``.
        context: The running task's.
    """
    for asset in assets:
        timestamps = added.get(asset.name.removesuffix("_raw"), ())
        hours = sorted({format_time(floor_hour(parse_time(timestamp))) for timestamp in timestamps})
        context["outlet_events"][asset].extra = {"rows": len(timestamps), "hours": hours}
