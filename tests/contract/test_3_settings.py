import pytest
from pydantic import SecretStr

from coinwatch.settings import PROJECT_DIR, SettingsError, load_settings


def test_defaults_are_those_of_the_contract(monkeypatch):
    monkeypatch.delenv("COINWATCH_DATA_DIR")
    settings = load_settings()
    assert settings.model_dump() == {
        "coins": ("bitcoin",),
        "currency": "usd",
        "data_dir": PROJECT_DIR / "data",
        "bitcoin_raw_path": None,
        "bitcoin_processed_path": None,
        "bitcoin_archive_path": None,
        "s3_bucket": "",
        "s3_prefix": "",
        "history_days": 90,
        "config": PROJECT_DIR / "include" / "coinwatch.yaml",
        "coingecko_per_minute": None,
        "coingecko_monthly_limit": None,
        "alert_max_age_hours": 24.0,
        "heartbeat_url": SecretStr(""),
    }
    assert settings.raw_path("bitcoin") == PROJECT_DIR / "data" / "bitcoin_raw.csv"
    assert settings.processed_path("ethereum") == PROJECT_DIR / "data" / "ethereum_processed.csv"
    assert settings.archive_path == PROJECT_DIR / "data" / "archive"


def test_the_environment_decides(monkeypatch, tmp_path):
    monkeypatch.setenv("COINWATCH_COINS", " bitcoin, ethereum ,")
    monkeypatch.setenv("COINWATCH_CURRENCY", "eur")
    monkeypatch.setenv("COINWATCH_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("BITCOIN_RAW_PATH", str(tmp_path / "raw" / "btc.csv"))
    monkeypatch.setenv("BITCOIN_PROCESSED_PATH", str(tmp_path / "btc_out.csv"))
    monkeypatch.setenv("BITCOIN_ARCHIVE_PATH", str(tmp_path / "attic"))
    monkeypatch.setenv("COINWATCH_S3_BUCKET", "prices")
    monkeypatch.setenv("COINWATCH_S3_PREFIX", "/team/coins/")
    monkeypatch.setenv("COINWATCH_HISTORY_DAYS", "")
    monkeypatch.setenv("COINWATCH_HEARTBEAT_URL", "https://hc-ping.com/secret")
    settings = load_settings()
    assert settings.coins == ("bitcoin", "ethereum")
    assert settings.currency == "eur"
    assert settings.raw_path("bitcoin") == tmp_path / "raw" / "btc.csv"
    assert settings.raw_path("ethereum") == tmp_path / "ethereum_raw.csv"
    assert settings.processed_path("bitcoin") == tmp_path / "btc_out.csv"
    assert settings.archive_path == tmp_path / "attic"
    assert (settings.s3_bucket, settings.s3_prefix) == ("prices", "team/coins")
    assert settings.history_days == 90
    assert settings.heartbeat_url.get_secret_value() == "https://hc-ping.com/secret"
    assert "secret" not in f"{settings} {settings!r} {settings.model_dump_json()}"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        pytest.param("COINWATCH_COINS", "Bitcoin", "='Bitcoin': 'Bitcoin' is not a CoinGecko id", id="case"),
        pytest.param("COINWATCH_COINS", "bitcoin,../x", "'../x' is not a CoinGecko id", id="a path"),
        pytest.param("COINWATCH_COINS", "bitcoin,bitcoin", "duplicate id", id="twice"),
        pytest.param("COINWATCH_COINS", ",", "COINWATCH_COINS=',': at least one CoinGecko id is needed", id="no coin"),
        pytest.param("COINWATCH_CURRENCY", "$", "COINWATCH_CURRENCY='$': allowed is a quote currency", id="currency"),
        pytest.param(
            "COINWATCH_HISTORY_DAYS", "4000", "='4000': Input should be less than or equal to 3650", id="too long"
        ),
        pytest.param("COINWATCH_HISTORY_DAYS", "a lot", "COINWATCH_HISTORY_DAYS='a lot': ", id="not a number"),
        pytest.param(
            "COINWATCH_ALERT_MAX_AGE_HOURS", "0", "='0': Input should be greater than or equal to 1", id="age"
        ),
        pytest.param(
            "COINWATCH_HEARTBEAT_URL",
            "hc-ping.com/secret",
            "COINWATCH_HEARTBEAT_URL=***: allowed is a URL",
            id="secret",
        ),
        pytest.param("COINWATCH_S3_BUCKET", "s3://prices", "COINWATCH_S3_BUCKET='s3://prices': an S3", id="bucket"),
    ],
)
def test_a_wrong_value_names_the_variable_the_value_and_what_is_allowed(monkeypatch, variable, value, message):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as failure:
        load_settings()
    assert message in str(failure.value)
    assert variable in str(failure.value)
    assert "secret" not in str(failure.value)


def test_all_wrong_values_are_named_at_once(monkeypatch):
    monkeypatch.setenv("COINWATCH_CURRENCY", "$")
    monkeypatch.setenv("COINWATCH_HISTORY_DAYS", "1")
    with pytest.raises(SettingsError) as failure:
        load_settings()
    assert [line.partition("=")[0] for line in str(failure.value).splitlines()] == [
        "COINWATCH_CURRENCY",
        "COINWATCH_HISTORY_DAYS",
    ]
