from types import SimpleNamespace

import pytest
from airflow.sdk import Asset, AssetAlias

from coinwatch import events
from coinwatch.events import describe, publish, publish_through

ASSET = Asset(name="raw_prices", uri="file:///data/bitcoin_raw.csv")
ALIAS = AssetAlias(name="prices_released")


@pytest.fixture
def outlets(monkeypatch):
    """The event on each outlet of the running task."""
    added = []
    outlets = {
        ASSET: SimpleNamespace(extra={}),
        ALIAS: SimpleNamespace(added=added, add=lambda asset, extra: added.append((asset, extra))),
    }
    monkeypatch.setattr(events, "get_current_context", lambda: {"outlet_events": outlets})
    return outlets


def test_an_event_has_coins_rows_and_hours(outlets):
    hours = ["2026-11-22T10:23:00Z", "2026-11-22T10:00:00Z", "2026-11-22T09:00:00Z"]
    publish(ASSET, {"bitcoin": hours, "ethereum": []})
    assert outlets[ASSET].extra == {
        "coins": ["bitcoin"],
        "rows": 3,
        "hours": ["2026-11-22T09:00:00Z", "2026-11-22T10:00:00Z"],
    }


def test_an_events_extra_is_bounded():
    hours = [f"2026-11-{day:02}T{hour:02}:00:00Z" for day in (20, 21) for hour in range(24)]
    extra = describe({f"coin-{number:04}": hours for number in range(1000)})
    assert extra == {"coins": [f"coin-{number:04}" for number in range(24)], "rows": 48_000, "hours": hours[24:]}


def test_an_alias_has_an_event_only_if_something_happened(outlets):
    nothing = describe({})
    assert publish_through(ALIAS, ASSET, nothing) == nothing
    assert outlets[ALIAS].added == []
    publish_through(ALIAS, lambda: ASSET, {"rows": 1})
    assert outlets[ALIAS].added == [(ASSET, {"rows": 1})]
