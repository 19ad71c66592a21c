from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from coinwatch.analysis.anomalies import detect_anomalies
from coinwatch.analysis.statistics import compute_statistics
from coinwatch.rules import load_rules
from coinwatch.sandbox.market import COINS, RecordedMarket, SimulatedMarket
from coinwatch.settings import PROJECT_DIR

FALLS_AT = datetime(2026, 11, 23, 4, 37, 17, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_everybody_sees_the_same_story_whatever_the_clock_says():
    first, second = SimulatedMarket(FALLS_AT), SimulatedMarket(FALLS_AT + timedelta(days=77, minutes=3))
    for hours in (-8000, -24.5, -1, 0, 0.3, 700):
        shift = timedelta(hours=hours)
        prices = [market.price_at("bitcoin", market.falls_at + shift) for market in (first, second)]
        assert prices[0] == pytest.approx(prices[1], rel=1e-9)


def test_bitcoin_falls_once_and_by_more_than_six_percent():
    market = SimulatedMarket(FALLS_AT)
    now = market.price_at("bitcoin", FALLS_AT + timedelta(seconds=30))
    for minutes in range(30, 91, 5):
        before = market.price_at("bitcoin", FALLS_AT - timedelta(minutes=minutes))
        assert -0.08 < now / before - 1 < -0.06
    ethereum = [market.price_at("ethereum", FALLS_AT + timedelta(minutes=minutes)) for minutes in (-1, 1)]
    assert ethereum[1] == pytest.approx(ethereum[0], rel=0.01)


@pytest.mark.parametrize("minute", range(0, 60, 7))
def test_at_the_first_hour_exactly_one_alert_fires_at_any_minute(minute):
    rules = load_rules(PROJECT_DIR / "include" / "coinwatch.yaml")
    market = SimulatedMarket(FALLS_AT.replace(minute=minute))
    now = market.falls_at + timedelta(seconds=40)
    hours = [now.replace(minute=0, second=0) - HOUR * number for number in range(90 * 24, -1, -1)]
    points = [(hour, hour + timedelta(seconds=41)) for hour in hours if hour + timedelta(seconds=41) < market.falls_at]
    rows = [("bitcoin", hour, market.price_at("bitcoin", point), "history") for hour, point in points]
    rows.append(("bitcoin", now, market.price_at("bitcoin", now), "live"))
    prices = pd.DataFrame(rows, columns=["coin", "ts", "price", "source"])
    prices["ts"] = pd.to_datetime(prices["ts"], utc=True)
    statistics = compute_statistics(prices, {"bitcoin": hours[0]}, {}, rules)
    detection = detect_anomalies(statistics.assign(source=prices["source"]), {"bitcoin": now}, {}, rules)
    assert [anomaly.rule for anomaly in detection.anomalies] == ["move_1h"]


def test_a_market_is_continued_by_the_next_start(tmp_path):
    first = SimulatedMarket.kept_in(tmp_path / "market.json", FALLS_AT)
    second = SimulatedMarket.kept_in(tmp_path / "market.json", FALLS_AT + timedelta(days=3))
    moment = FALLS_AT + timedelta(days=3)
    assert second.falls_at == first.falls_at.replace(microsecond=0)
    assert second.price_at("bitcoin", moment) == first.price_at("bitcoin", moment)


def test_a_year_back_and_years_on_there_are_prices_of_a_sane_size():
    market = SimulatedMarket(FALLS_AT)
    for coin, made_up in COINS.items():
        for days in (-366, -100, 0, 400, 2000):
            price = market.price_at(coin, FALLS_AT + timedelta(days=days))
            assert made_up.price / 30 < price < made_up.price * 30
    assert market.price_at("unknown", FALLS_AT) is None


def test_recorded_prices_hold_until_the_next_one(tmp_path):
    path = tmp_path / "prices.csv"
    path.write_text("timestamp,price\n2026-01-01T01:00:00Z,2.5\n2026-01-01T00:00:00Z,1\n")
    market = RecordedMarket.from_csv(path, "bitcoin")
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert [market.price_at("bitcoin", start + HOUR * hours) for hours in (-0.1, 0, 0.9, 1, 5)] == [
        None,
        1,
        1,
        2.5,
        2.5,
    ]
    assert market.price_at("ethereum", start) is None


def test_a_file_of_other_columns_is_refused(tmp_path):
    path = tmp_path / "prices.csv"
    path.write_text("time,close\n")
    with pytest.raises(ValueError, match=r"needs a header line with timestamp and price, but has \['time', 'close'\]"):
        RecordedMarket.from_csv(path, "bitcoin")
