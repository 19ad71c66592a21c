"""Settings: environment variables as one typed, validated whole (contract, section 3)."""

import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from coinwatch.errors import CoinwatchError

PROJECT_DIR = Path(__file__).resolve().parents[2]
"""The folder that holds dags/, include/ and data/."""

COINGECKO_CONN_ID = "coingecko_default"
SLACK_CONN_ID = "slack_default"
FAILURES_CONN_ID = "slack_failures"
SLACK_API_CONN_ID = "slack_api_default"
AWS_CONN_ID = "aws_default"
WAREHOUSE_CONN_ID = "warehouse_default"


class SettingsError(CoinwatchError):
    """Wrong settings; the message names each variable, its value and what is allowed."""

    retryable = False
    exit_status = 2


class Settings(BaseSettings):
    """The settings of every Dag and command.

    Attributes:
        coins: CoinGecko ids to watch, in the order given.
        currency: Quote currency, as CoinGecko names it.
        data_dir: Folder for everything written locally.
        bitcoin_raw_path: Bitcoin's raw CSV, if it is elsewhere.
        bitcoin_processed_path: Bitcoin's processed CSV, if it is elsewhere.
        bitcoin_archive_path: Folder of the snapshots, if it is elsewhere.
        s3_bucket: Bucket for raw, processed and archive; empty means no uploads.
        s3_prefix: Prefix of every key in the bucket, without slashes at its ends.
        history_days: Days of hourly history that a new installation fetches, and how far back gaps are filled.
        config: File with the alert rules and windows.
        coingecko_per_minute: Requests to CoinGecko in a minute, over all workers; None: as the plan allows.
        coingecko_monthly_limit: Requests to CoinGecko in a month; None: as the plan allows.
        alert_max_age_hours: Alerts that were not delivered for longer than this are sent in one summary.
        heartbeat_url: URL that `watch_feed` calls after each run; empty: none. It is a secret.
    """

    model_config = SettingsConfigDict(
        env_prefix="COINWATCH_",
        env_ignore_empty=True,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        validate_default=True,
    )

    coins: Annotated[tuple[str, ...], NoDecode] = ("bitcoin",)
    currency: str = "usd"
    data_dir: Path = Path("data")
    bitcoin_raw_path: Path | None = Field(None, validation_alias="BITCOIN_RAW_PATH")
    bitcoin_processed_path: Path | None = Field(None, validation_alias="BITCOIN_PROCESSED_PATH")
    bitcoin_archive_path: Path | None = Field(None, validation_alias="BITCOIN_ARCHIVE_PATH")
    s3_bucket: str = ""
    s3_prefix: str = ""
    # Paid plans have hourly prices since 2018; keyless and with a demo key 365 days are fetched.
    history_days: int = Field(90, ge=2, le=3650)
    config: Path = Path("include/coinwatch.yaml")
    coingecko_per_minute: float | None = Field(None, gt=0, le=10_000)
    coingecko_monthly_limit: int | None = Field(None, gt=0)
    alert_max_age_hours: float = Field(24.0, ge=1, le=8760)
    heartbeat_url: SecretStr = SecretStr("")

    @field_validator("coins", mode="before")
    @classmethod
    def _split_coins(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("coins")
    @classmethod
    def _check_coins(cls, coins: tuple[str, ...]) -> tuple[str, ...]:
        if not coins:
            raise ValueError("at least one CoinGecko id is needed, for example bitcoin")
        # An id is part of file names.
        wrong = [coin for coin in coins if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", coin)]
        if wrong:
            raise ValueError(
                f"{wrong[0]!r} is not a CoinGecko id: ids have lower-case letters, digits, '-', '_' and '.', "
                "comma-separated, for example bitcoin,ethereum"
            )
        if len(set(coins)) < len(coins):
            raise ValueError("duplicate id")
        return coins

    @field_validator("currency")
    @classmethod
    def _check_currency(cls, currency: str) -> str:
        if not re.fullmatch(r"[a-z]{3,5}", currency):
            raise ValueError("allowed is a quote currency of CoinGecko in lower case, for example usd, eur or btc")
        return currency

    @field_validator("data_dir", "bitcoin_raw_path", "bitcoin_processed_path", "bitcoin_archive_path", "config")
    @classmethod
    def _resolve_path(cls, path: Path | None) -> Path | None:
        return None if path is None else (PROJECT_DIR / path.expanduser()).absolute()

    @field_validator("s3_bucket")
    @classmethod
    def _check_bucket(cls, bucket: str) -> str:
        if bucket and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket):
            raise ValueError(
                "an S3 bucket name has 3 to 63 lower-case letters, digits, '.' and '-' (no s3://, no folder: "
                "that is COINWATCH_S3_PREFIX)"
            )
        return bucket

    @field_validator("s3_prefix")
    @classmethod
    def _strip_prefix(cls, prefix: str) -> str:
        return prefix.strip("/")

    @field_validator("heartbeat_url")
    @classmethod
    def _check_heartbeat_url(cls, url: SecretStr) -> SecretStr:
        parts = urlsplit(url.get_secret_value())
        if url.get_secret_value() and not (parts.scheme in {"http", "https"} and parts.hostname):
            raise ValueError("allowed is a URL that starts with https:// or http://")
        return url

    def raw_path(self, coin: str) -> Path:
        """Return the path of a coin's raw CSV."""
        if coin == "bitcoin" and self.bitcoin_raw_path:
            return self.bitcoin_raw_path
        return self.data_dir / f"{coin}_raw.csv"

    def processed_path(self, coin: str) -> Path:
        """Return the path of a coin's processed CSV."""
        if coin == "bitcoin" and self.bitcoin_processed_path:
            return self.bitcoin_processed_path
        return self.data_dir / f"{coin}_processed.csv"

    @property
    def archive_path(self) -> Path:
        """The folder of the snapshots of all coins."""
        return self.bitcoin_archive_path or self.data_dir / "archive"


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment.

    Args:
        **overrides: Values that win over the environment, by field name.

    Raises:
        SettingsError: At least one value is wrong.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = []
        for wrong in error.errors():
            name = str(wrong["loc"][0]).upper()
            variable = name if name.startswith("BITCOIN_") else f"COINWATCH_{name}"
            value = "***" if name == "HEARTBEAT_URL" else repr(wrong["input"])
            lines.append(f"{variable}={value}: {wrong['msg'].removeprefix('Value error, ')}")
        raise SettingsError("\n".join(lines)) from None
