import math
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prices import STORED, as_prices, compute
from reference import expected_statistics

from coinwatch.statistics import rolling as module
from coinwatch.statistics.rolling import compute_statistics, to_records

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(hours):
    return START + timedelta(hours=hours)


# Minutes between polls: the hour, a click on Trigger a moment later, drifting polls, an outage.
gaps = st.sampled_from([60, 60, 60, 60, 1, 29, 30, 31, 71, 90, 120, 150, 600, 1440, 3000])
steps = st.one_of(st.sampled_from([0.0, 0.0, 0.1]), st.floats(-3, 3))
sources = st.sampled_from(["live", "live", "history"])
series = st.lists(st.tuples(gaps, steps, sources), min_size=1, max_size=60)


def prices_of(coins):
    rows = []
    for coin, points in sorted(coins.items()):
        t, price = START, 100.0
        for minutes, step, source in points:
            t, price = t + timedelta(minutes=minutes), price * math.exp(step)
            rows.append((coin, t, price, source))
    return as_prices(rows)


@settings(max_examples=60, deadline=None)
@given(coins=st.dictionaries(st.sampled_from(["a", "b", "c"]), series, min_size=1))
def test_every_row_is_what_the_definitions_say(coins, rules):
    prices = prices_of(coins)
    computed = compute(prices, rules)
    assert computed[["coin", "ts", "price"]].equals(prices[["coin", "ts", "price"]])
    for _, rows in computed.groupby("coin"):
        points = list(zip(rows["ts"], rows["price"], strict=True))
        for row, expected in zip(to_records(rows), expected_statistics(points), strict=True):
            for name, value in expected.items():
                # The deviation of nearly equal large numbers is known no better than the numbers themselves.
                wanted = None if value is None else pytest.approx(value, rel=1e-6, abs=1e-9)
                assert row[name] == wanted, name


@settings(max_examples=60, deadline=None)
@given(coins=st.dictionaries(st.sampled_from(["a", "b"]), series, min_size=1), data=st.data())
def test_computed_in_two_parts_it_is_the_same_bit_for_bit(coins, data, rules):
    prices = prices_of(coins)
    computed = compute(prices, rules)
    since, parts = {}, []
    for coin, rows in computed.groupby("coin"):
        cut = data.draw(st.integers(0, len(rows) - 1))
        since[coin] = rows["ts"].iloc[cut].to_pydatetime()
        # Only what the function asks for: 25 hours before, and the last row before.
        context = prices.loc[rows.index].assign(**{name: rows[name] for name in STORED}).reset_index(drop=True)
        parts.append(context[(context["ts"] >= since[coin] - timedelta(hours=25)) | (context.index == cut - 1)])
    tail = compute_statistics(pd.concat(parts, ignore_index=True), since, rules).reset_index(drop=True)
    wanted = computed[computed["ts"] >= computed["coin"].map(since)].reset_index(drop=True)
    pd.testing.assert_frame_equal(tail, wanted, check_exact=True)


def test_in_small_chunks_it_is_the_same_bit_for_bit(monkeypatch, frame, rules):
    prices = frame({"a": [(hour / 2, 100 + hour % 7) for hour in range(300)]})
    computed = compute(prices, rules)
    monkeypatch.setattr(module, "_CHUNK", 50)
    pd.testing.assert_frame_equal(compute(prices, rules), computed, check_exact=True)


def test_for_an_absent_coin_and_without_rows_nothing_is_computed(frame, rules):
    prices = frame({"a": [(0, 100.0)]})
    assert list(compute_statistics(prices, {}, rules).columns) == list(compute(prices, rules).columns)
    assert compute_statistics(prices, {}, rules).empty
    assert compute_statistics(prices[:0], {"a": START}, rules).empty


def test_a_constant_price_has_a_deviation_of_exactly_zero_and_no_zscore(frame, rules):
    computed = compute(frame({"a": [(hour, 0.1) for hour in range(30)]}), rules)
    assert set(computed["rolling_std_24h"].iloc[1:]) == {0.0}
    assert computed["zscore_24h"].isna().all()
    assert set(computed["rolling_mean_24h"]) == {0.1}


def test_windows_end_at_the_edges_that_the_contract_names(frame, rules):
    computed = compute(frame({"a": [(0, 1.0), (0.5, 2.0), (24, 4.0), (24.5, 8.0)]}), rules)
    assert computed["points_24h"].tolist() == [1, 2, 2, 2], "the window is open at its start"
    # 24 h before the third row lie the first one exactly and the second one half an hour off.
    assert computed["change_24h_pct"].tolist()[2:] == [300.0, 300.0]
    # 1 h before the last row there is nothing within half an hour but the row at exactly 30 minutes' distance.
    assert computed["change_1h_pct"].tolist()[1:] == [pytest.approx(100.0), pytest.approx(math.nan, nan_ok=True), 100.0]


def test_if_one_hour_is_missing_a_day_ago_the_price_25_hours_ago_counts(frame, rules):
    prices = frame({"a": [(hour, 100.0 + hour) for hour in range(26) if hour != 1]})
    assert compute(prices, rules)["change_24h_pct"].iloc[-1] == 25.0
    assert compute(prices, rules, since=at(25))["change_24h_pct"].tolist() == [25.0]


@pytest.mark.parametrize(
    ("hours", "reference"),
    [
        pytest.param(0.5, 99.0, id="half an hour: the one before is near enough"),
        pytest.param(1.5, 99.0, id="an hour and a half"),
        pytest.param(3.0, 99.0, id="three hours: a late poll, against the one before"),
        pytest.param(3.1, None, id="longer ago: unknown"),
    ],
)
def test_the_reference_of_a_late_poll_is_the_price_before_it(frame, rules, hours, reference):
    (row,) = to_records(compute(frame({"a": [(0, 99.0), (hours, 93.0)]}), rules, since=at(0.1)))
    assert row["reference_1h_price"] == reference
    assert row["reference_1h_ts"] == (None if reference is None else START)


def test_the_variance_that_judges_a_row_is_that_of_the_row_before_once_enough_was_learned(frame, rules):
    computed = compute(frame({"a": calm(60), "b": calm(60)}), rules)
    for _, rows in computed.groupby("coin"):
        assert rows["prior_variance"].isna().tolist() == [number <= 48 for number in range(60)]
        assert rows["prior_variance"].iloc[49:].tolist() == rows["sigma_variance"].iloc[48:-1].tolist()


def test_unchanged_polls_are_counted_over_live_rows_and_end_at_an_outage(rules):
    points = [(0, 1.0), (1, 1.0), (1.5, 2.0, "history"), (2, 1.0), (5.1, 1.0), (6, 1.0), (7, 3.0)]
    rows = to_records(
        compute(as_prices([("a", at(t), price, *(more or ["live"])) for t, price, *more in points]), rules)
    )
    assert [(row["unchanged_polls"], row["unchanged_since"]) for row in rows] == [
        (1, at(0)),
        (2, at(0)),
        (None, None),
        (3, at(0)),
        (1, at(5.1)),
        (2, at(5.1)),
        (1, at(7)),
    ]


def calm(hours):
    return [(hour, 100.5 if hour % 2 else 100.0) for hour in range(hours)]


def test_a_spike_that_is_taken_back_teaches_nothing(frame, rules):
    computed = compute(frame({"a": [*calm(100), (100, 112.0), (101, 100.3)]}), rules)
    before, during, after = computed[["sigma_variance", "sigma_samples"]].to_numpy().tolist()[-3:]
    assert during != before, "while it lasts it counts"
    assert after == before
    assert computed["reverts_ts"].iloc[-1] == at(100)
    assert computed["reverts_ts"].iloc[:-1].isna().all()


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
    computed = compute(frame({"a": [*calm(100), *after]}), rules)
    assert computed["sigma_samples"].iloc[-1] == 101
    assert computed["reverts_ts"].isna().all()


def test_in_the_warm_up_nothing_counts_as_a_spike(frame, rules):
    computed = compute(frame({"a": [*calm(40), (40, 112.0), (41, 100.3)]}), rules)
    assert computed["sigma_samples"].iloc[-1] == 41
