"""All assets, one per layer: names and URIs must not conflict across Dag files (contract, section 4)."""

from airflow.sdk import Asset, AssetAlias

from coinwatch.settings import Settings, load_settings


def layer_uri(settings: Settings, layer: str) -> str:
    """Return the URI of a layer's CSV files: the file of the one coin, or all of them in the data folder."""
    if len(settings.coins) > 1:
        return f"{settings.data_dir.as_uri()}/*_{layer}.csv"
    (coin,) = settings.coins
    return (settings.raw_path(coin) if layer == "raw" else settings.processed_path(coin)).as_uri()


_settings = load_settings()

RAW_PRICES = Asset(name="raw_prices", uri=layer_uri(_settings, "raw"))
"""The raw logs: `process_prices` starts because of it."""

PROCESSED_PRICES = Asset(name="processed_prices", uri=layer_uri(_settings, "processed"))

MISSING_HOURS = Asset(name="missing_hours")
"""Gaps that are due: `heal_history` starts because of it."""

GAPS_FOUND = AssetAlias(name="gaps_found")
"""Outlet of a task that has an event on MISSING_HOURS only if something is missing."""

PRICES_RELEASED = AssetAlias(name="prices_released")
"""Outlet of a task that has an event on RAW_PRICES only if a value was released from quarantine."""

S3_UPLOADED = AssetAlias(name="s3_uploaded")
"""Outlet of a task that has an event on `s3_prices` only if something was uploaded."""


def s3_prices() -> Asset:
    """Return the asset of the partitions on S3; not at parse, because its URI makes Airflow load boto3."""
    return Asset(name="s3_prices", uri=f"s3://{_settings.s3_bucket}/{_settings.s3_prefix}")
