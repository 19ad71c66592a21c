from types import SimpleNamespace

from coinwatch.assets import processed_assets, raw_assets
from coinwatch.events import publish_added
from coinwatch.settings import load_settings


def test_each_coin_has_an_asset_for_each_layer_at_the_place_of_its_file(tmp_path):
    settings = load_settings(coins=("bitcoin", "ethereum"), data_dir=tmp_path)
    named = [(asset.name, asset.uri) for asset in raw_assets(settings) + processed_assets(settings)]
    assert named == [
        (f"{coin}_{layer}", f"file://{tmp_path}/{coin}_{layer}.csv")
        for layer in ("raw", "processed")
        for coin in ("bitcoin", "ethereum")
    ]


def test_the_event_of_each_coin_says_how_many_rows_and_which_hours(tmp_path):
    assets = raw_assets(load_settings(coins=("bitcoin", "ethereum"), data_dir=tmp_path))
    events = {asset: SimpleNamespace(extra={}) for asset in assets}
    added = {"bitcoin": ["2026-11-22T10:23:00Z", "2026-11-22T10:00:00Z", "2026-11-22T09:00:00Z"]}
    publish_added(added, assets, {"outlet_events": events})
    assert [events[asset].extra for asset in assets] == [
        {"rows": 3, "hours": ["2026-11-22T09:00:00Z", "2026-11-22T10:00:00Z"]},
        {"rows": 0, "hours": []},
    ]
