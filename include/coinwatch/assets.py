"""All assets, in one place: names and URIs must not conflict across Dag files (contract, section 4)."""

from airflow.sdk import Asset

from coinwatch.settings import Settings, load_settings


def raw_assets(settings: Settings) -> list[Asset]:
    """The raw CSV of each coin: `ingest_prices` produces it, `process_prices` starts because of it."""
    return [Asset(name=f"{coin}_raw", uri=settings.raw_path(coin).as_uri()) for coin in settings.coins]


def processed_assets(settings: Settings) -> list[Asset]:
    """The processed CSV of each coin: `process_prices` produces it."""
    return [Asset(name=f"{coin}_processed", uri=settings.processed_path(coin).as_uri()) for coin in settings.coins]


RAW_ASSETS = raw_assets(load_settings())
PROCESSED_ASSETS = processed_assets(load_settings())
