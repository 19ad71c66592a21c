import math
import statistics as reference
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinwatch.statistics import rolling as module
from coinwatch.statistics.rolling import compute_statistics

START = datetime(2026, 1, 1, tzinfo=UTC)


def whole(prices, rules):
    return compute_statistics(prices, dict.fromkeys(prices["coin"], START - timedelta(days=9999)), rules)


def expected_row(points, index):
    """The definitions of the contract, section 5, one row at a time and in plain Python."""
    t, price = points[index]
    hour, day = timedelta(hours=1), timedelta(hours=24)
    window = [p for s, p in points if t - day < s <= t]
    before = [p for s, p in points if t - day < s < t]

    def change(distance, tolerance):
        near = [(abs(t - distance - s), s, p) for s, p in points if s < t and abs(t - distance - s) <= tolerance]
        return 100 * (price / min(near)[2] - 1) if near else math.nan

    spread = reference.stdev(before) if len(before) >= 12 else 0
    return {
        "points_24h": len(window),
        "rolling_mean_24h": reference.fmean(window),
        "rolling_std_24h": reference.stdev(window) if len(window) > 1 else math.nan,
        "zscore_24h": (price - reference.fmean(before)) / spread if spread else math.nan,
        "change_1h_pct": change(hour, hour / 2),
        "change_24h_pct": change(day, hour),
    }


# Minutes between pulls: the hour, a click on Trigger a moment later, drifting polls, an outage.
gaps = st.sampled_from([60, 60, 60, 60, 1, 29, 30, 31, 71, 90, 120, 150, 600, 1440, 3000])
series = st.lists(st.tuples(gaps, st.floats(1e-6, 1e6)), min_size=1, max_size=60)


def as_prices(coins):
    rows = []
    for coin, points in sorted(coins.items()):
        t = START
        for minutes, price in points:
            t += timedelta(minutes=minutes)
            rows.append((coin, t, price))
    frame = pd.DataFrame(rows, columns=["coin", "ts", "price"])
    frame["ts"] = pd.to_datetime(frame["ts"], utc=True)
    return frame.assign(sigma_variance=math.nan, sigma_samples=math.nan)


@settings(max_examples=60, deadline=None)
@given(coins=st.dictionaries(st.sampled_from(["a", "b", "c"]), series, min_size=1))
def test_every_row_is_what_the_definitions_say(coins, rules):
    prices = as_prices(coins)
    computed = whole(prices, rules)
    assert computed[["coin", "ts", "price"]].equals(prices[["coin", "ts", "price"]])
    for _, rows in computed.groupby("coin"):
        points = list(zip(rows["ts"], rows["price"], strict=True))
        for index, row in enumerate(rows.itertuples()):
            for name, value in expected_row(points, index).items():
                # The deviation of nearly equal large numbers is known no better than the numbers themselves.
                assert getattr(row, name) == pytest.approx(value, rel=1e-6, abs=1e-9, nan_ok=True), name


@settings(max_examples=60, deadline=None)
@given(coins=st.dictionaries(st.sampled_from(["a", "b"]), series, min_size=1), data=st.data())
def test_computed_in_two_parts_it_is_the_same_bit_for_bit(coins, data, rules):
    prices = as_prices(coins)
    computed = whole(prices, rules)
    since, parts = {}, []
    for coin, rows in computed.groupby("coin"):
        cut = data.draw(st.integers(0, len(rows) - 1))
        since[coin] = rows["ts"].iloc[cut].to_pydatetime()
        # Only what the contract of the function asks for: 25 hours before, and the last row before.
        context = rows[["coin", "ts", "price", "sigma_variance", "sigma_samples"]].reset_index(drop=True)
        parts.append(context[(context["ts"] >= since[coin] - timedelta(hours=25)) | (context.index == cut - 1)])
    tail = compute_statistics(pd.concat(parts, ignore_index=True), since, rules)
    wanted = computed[computed["ts"] >= computed["coin"].map(since)].reset_index(drop=True)
    pd.testing.assert_frame_equal(tail, wanted, check_exact=True)


def test_computed_row_by_row_it_is_the_same_bit_for_bit(btc_2024, rules):
    prices = btc_2024[:80].copy()
    parts = []
    for number, ts in enumerate(prices["ts"]):
        seen = prices[max(0, number - 24) : number + 1].reset_index(drop=True)
        row = compute_statistics(seen, {"bitcoin": ts.to_pydatetime()}, rules)
        for name in ("sigma_variance", "sigma_samples"):
            prices.loc[prices.index[number], name] = row[name].item()
        parts.append(row)
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole(btc_2024[:80], rules), check_exact=True)


def test_where_nothing_is_asked_for_nothing_is_computed(frame, rules):
    prices = frame({"a": [(0, 100.0)]})
    assert list(compute_statistics(prices, {}, rules).columns) == list(whole(prices, rules).columns)
    assert compute_statistics(prices, {}, rules).empty
    assert compute_statistics(prices[:0], {"a": START}, rules).empty


def test_in_small_chunks_it_is_the_same_bit_for_bit(monkeypatch, frame, rules):
    prices = frame({"a": [(hour / 2, 100 + hour % 7) for hour in range(300)]})
    computed = whole(prices, rules)
    monkeypatch.setattr(module, "_CHUNK", 50)
    pd.testing.assert_frame_equal(whole(prices, rules), computed, check_exact=True)


def test_a_constant_price_has_a_deviation_of_exactly_zero_and_no_zscore(frame, rules):
    computed = whole(frame({"a": [(hour, 0.1) for hour in range(30)]}), rules)
    assert set(computed["rolling_std_24h"].iloc[1:]) == {0.0}
    assert computed["zscore_24h"].isna().all()
    assert set(computed["rolling_mean_24h"]) == {0.1}


def test_the_first_row_knows_nothing_but_itself(frame, rules):
    row = whole(frame({"a": [(0, 100.0)]}), rules).iloc[0]
    assert (row["points_24h"], row["rolling_mean_24h"], row["sigma_samples"]) == (1, 100.0, 0)
    assert row[["rolling_std_24h", "zscore_24h", "change_1h_pct", "change_24h_pct", "sigma_1h_pct"]].isna().all()


def test_windows_end_at_the_edges_that_the_contract_names(frame, rules):
    computed = whole(frame({"a": [(0, 1.0), (0.5, 2.0), (24, 4.0), (24.5, 8.0)]}), rules)
    assert computed["points_24h"].tolist() == [1, 2, 2, 2], "the window is open at its start"
    changes = computed["change_24h_pct"].tolist()
    # 24 h before the third row lie the first one exactly and the second one half an hour off.
    assert changes[2:] == [300.0, 300.0]
    # 1 h before the last row there is nothing within half an hour but the row at exactly 30 minutes' distance.
    assert computed["change_1h_pct"].tolist()[1:] == [pytest.approx(100.0), pytest.approx(math.nan, nan_ok=True), 100.0]


def test_of_two_prices_as_near_the_earlier_one_counts(frame, rules):
    computed = whole(frame({"a": [(0.75, 1.0), (1.25, 2.0), (2, 4.0)]}), rules)
    assert computed["change_1h_pct"].iloc[2] == 300.0


def test_where_one_hour_is_missing_a_day_ago_the_price_25_hours_ago_counts(frame, rules):
    prices = frame({"a": [(hour, 100.0 + hour) for hour in range(26) if hour != 1]})
    assert whole(prices, rules)["change_24h_pct"].iloc[-1] == 25.0
    alone = compute_statistics(prices, {"a": START + timedelta(hours=25)}, rules)
    assert alone["change_24h_pct"].tolist() == [25.0]


def test_on_recorded_prices_a_few_rows_agree_with_a_calculation_made_apart(btc_2024, rules):
    computed = whole(btc_2024, rules)
    points = list(zip(btc_2024["ts"], btc_2024["price"], strict=True))
    for index in (11, 24, 1000, 6114):
        window = points[max(0, index - 26) : index + 1]
        for name, value in expected_row(window, len(window) - 1).items():
            assert computed[name].iloc[index] == pytest.approx(value, rel=1e-9, nan_ok=True), (index, name)


def sigmas(frame, rules, points):
    return whole(frame({"a": points}), rules)[["sigma_variance", "sigma_samples"]].to_numpy().tolist()


def calm(hours):
    return [(hour, 100.5 if hour % 2 else 100.0) for hour in range(hours)]


def test_a_spike_that_is_taken_back_teaches_nothing(frame, rules):
    states = sigmas(frame, rules, [*calm(100), (100, 112.0), (101, 100.3)])
    assert states[-2] != states[-3], "while it lasts nobody can know"
    assert states[-1] == states[-3]


@pytest.mark.parametrize(
    "after",
    [
        pytest.param([(100, 112.0), (101, 106.0)], id="half of it"),
        pytest.param([(100, 112.0), (101, 118.0)], id="further"),
        pytest.param([(100, 112.0), (101.6, 100.3)], id="too late"),
        pytest.param([(100, 102.0), (101, 100.0)], id="no abnormal move"),
    ],
)
def test_a_move_that_is_not_taken_back_is_learned_from(frame, rules, after):
    states = sigmas(frame, rules, [*calm(100), *after])
    assert states[-1][1] == 101


def test_before_enough_was_learned_nothing_counts_as_a_spike(frame, rules):
    assert sigmas(frame, rules, [*calm(40), (40, 112.0), (41, 100.3)])[-1][1] == 41
