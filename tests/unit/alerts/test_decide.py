import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prices import STORED, as_prices, compute, observations

from coinwatch.alerts.decide import Incident, Transition, decide_all
from coinwatch.alerts.observe import observe
from coinwatch.statistics.rolling import to_records

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(hours):
    return START + timedelta(hours=hours)


def transitions(prices, rules, memory=None, coin="a", since=START, ages=None, **changes):
    coin_rules = rules.for_coin(coin).model_copy(update=changes)
    return decide_all(memory or {}, observations(prices, rules, since, ages).get(coin, []), coin_rules)


def calm(hours, level=100.0):
    """A price that goes up and down by half a percent, hour by hour."""
    return [(hour, level * (1.005 if hour % 2 else 1.0)) for hour in range(hours)]


def stays(start, price, hours):
    """A price that hardly moves; one that does not move at all would be stale."""
    return [(start + hour, price + 0.01 * (hour % 2)) for hour in range(hours)]


def states(found):
    return [(each.note, each.incident.state, (each.ts - START) / timedelta(hours=1)) for each in found]


@pytest.fixture
def life(frame, rules):
    """Return the transitions of prices after a hundred calm hours at 100."""

    def life(*points, **changes):
        return states(transitions(frame({"a": [*calm(100), *points]}), rules, **changes))

    return life


def test_a_fall_within_an_hour_has_all_facts_of_a_notification(frame, rules):
    prices = frame({"a": [*calm(100), (100, 93.0)]})
    sigma = math.sqrt(compute(prices, rules)["sigma_variance"].iloc[-2])
    log_return = math.log(93.0 / 100.49999999999999)
    incident = Incident("a", "usd", "move_1h", "firing", at(100), at(100), at(100), log_return, 100.49999999999999)
    (transition,) = transitions(prices, rules)
    assert transition == Transition(
        incident=incident,
        note="move_1h",
        severity="critical",
        price=93.0,
        change_pct=100 * (93.0 / 100.49999999999999 - 1),
        threshold_pct=100 * math.expm1(-6 * sigma),
        typical_pct=100 * sigma,
        hours=1.0,
    )
    assert transition.id == incident.id == "move_1h-a-usd-20260105T040000Z"
    assert transition.times_typical == pytest.approx(-log_return / sigma)


def test_minus_7_percent_the_same_minus_12_percent_and_back_is_one_firing_one_worse_one_resolved(life):
    assert life((100, 93.0), (101, 93.0), (102, 88.0), (103, 100.0), (104, 100.0)) == [
        ("move_1h", "firing", 100.0),
        ("move_1h", "worse", 102.0),
        ("move_1h", "resolved", 103.0),
    ]


def test_what_came_back_raises_no_alert_a_day_later_as_a_move_the_other_way(life):
    # The threshold of a day is 8.6 %; 24 hours after the fall the price is 14 % above what it was then.
    fall = [(100, 93.0), (101, 93.0), (102, 88.0), *stays(103, 100.0, 30)]
    assert [state for _, state, _ in life(*fall)] == ["firing", "worse", "resolved"]
    spike = [(100, 85.0), *stays(101, 100.0, 30)]
    assert [state for _, state, _ in life(*spike)] == ["firing", "corrected"]


def test_a_day_after_what_came_back_a_real_move_raises_an_alert(life):
    slow = [(120 + hour, 100 + 2.0 * hour) for hour in range(8)]
    found = life((100, 88.0), *stays(101, 100.0, 19), *slow)
    assert [(note, state) for note, state, _ in found] == [
        ("move_1h", "firing"),
        ("spike_reverted", "corrected"),
        ("move_24h", "firing"),
    ]


def test_two_falls_in_a_row_are_one_fall_from_where_the_first_began(frame, rules):
    prices = frame({"a": [*calm(100), (100, 93.0), (101, 93.0), (102, 88.0)]})
    worse = transitions(prices, rules)[-1]
    assert worse.hours == 3.0
    assert worse.change_pct == pytest.approx(-12.4378, abs=1e-3)
    assert worse.id == "move_1h-a-usd-20260105T040000Z-worse-20260105T060000Z"


def test_a_move_that_stays_is_resolved_after_the_quiet_time_unless_the_day_is_abnormal_too(life):
    # The day's threshold is 8.6 %: 4 % lie under 0.7 of it, and 15 % above.
    assert life(*stays(100, 96.0, 30)) == [("move_1h", "firing", 100.0), ("move_1h", "resolved", 106.0)]
    assert life(*stays(100, 85.0, 30)) == [("move_1h", "firing", 100.0), ("move_1h", "resolved", 124.0)]


def test_a_spike_that_the_next_price_takes_back_is_corrected_and_raises_no_alert_itself(life):
    assert life((100, 93.0), (101, 100.0), (102, 100.4)) == [
        ("move_1h", "firing", 100.0),
        ("spike_reverted", "corrected", 101.0),
    ]


def test_a_move_beyond_the_beginning_is_a_new_incident(life):
    assert life((100, 93.0), (101, 109.0)) == [
        ("move_1h", "firing", 100.0),
        ("spike_reverted", "corrected", 101.0),
        ("move_1h", "firing", 101.0),
    ]


def test_after_an_end_it_is_quiet_for_the_rest_of_six_hours_unless_it_is_much_worse(life):
    spike = [(100, 93.0), (101, 100.0)]
    once = [("move_1h", "firing", 100.0), ("spike_reverted", "corrected", 101.0)]
    assert life(*spike, (102, 93.0), (103, 93.0)) == once
    assert life(*spike, (102, 88.0)) == [*once, ("move_1h", "firing", 102.0)]
    assert life(*spike, *stays(102, 100.0, 4), (106, 93.0)) == [*once, ("move_1h", "firing", 106.0)]


def test_an_abnormal_hour_after_the_quiet_time_goes_on_and_a_rise_after_it_is_no_worsening(life):
    # 15 % down, a little up, and 4 % down once more seven hours later; then it rises, and is still 17 % down.
    assert life((100, 85.0), *stays(101, 86.0, 6), (107, 82.5), (108, 83.5), *stays(109, 83.4, 4)) == [
        ("move_1h", "firing", 100.0),
        ("move_1h", "worse", 107.0),
    ]


def test_a_slow_fall_is_an_alert_of_the_day_and_resolved_when_the_day_is_typical_again(life):
    slow = [(100 + hour, 100 - 0.7 * (hour + 1)) for hour in range(16)]
    found = life(*slow, *stays(116, 88.8, 24))
    assert [(note, state) for note, state, _ in found] == [("move_24h", "firing"), ("move_24h", "resolved")]
    assert found[0][2] < 116 < found[1][2] <= 139


def test_an_abnormal_hour_in_an_abnormal_day_makes_it_worse(life):
    slow = [(100 + hour, 100 - 0.7 * (hour + 1)) for hour in range(16)]
    found = life(*slow, (116, 83.0), *stays(117, 83.0, 3))
    assert [state for _, state, _ in found] == ["firing", "worse"], "and then it is no worse than that"
    assert found[-1] == ("move_24h", "worse", 116.0)


def test_under_one_percent_nothing_is_raised_however_calm_it_was(frame, rules):
    quiet = [(hour, 100.0 + 0.001 * (hour % 2)) for hour in range(100)]
    assert transitions(frame({"a": [*quiet, (100, 100.95)]}), rules) == []
    assert states(transitions(frame({"a": [*quiet, (100, 101.1)]}), rules)) == [("move_1h", "firing", 100.0)]


def test_in_the_warm_up_nothing_is_raised(frame, rules):
    assert transitions(frame({"a": [*calm(48), (48, 50.0)]}), rules) == []
    assert states(transitions(frame({"a": [*calm(49), (49, 50.0)]}), rules)) == [("move_1h", "firing", 49.0)]


def test_the_move_of_a_late_poll_is_judged_by_its_hours(frame, rules):
    (late,) = [each for each in transitions(frame({"a": [*calm(100), (102, 93.0)]}), rules) if each.note == "move_1h"]
    sigma = math.sqrt(compute(frame({"a": calm(100)}), rules)["sigma_variance"].iloc[-1])
    assert (late.hours, late.typical_pct) == (3.0, pytest.approx(100 * sigma * math.sqrt(3)))


def test_history_never_raises(frame, rules):
    assert transitions(frame({"a": [*calm(100), (100, 93.0)]}, source="history"), rules) == []


def test_what_was_decided_is_not_decided_again(frame, rules):
    prices = frame({"a": [*calm(100), (100, 93.0), (101, 88.0), (102, 100.0)]})
    found = transitions(prices, rules)
    assert transitions(prices, rules, memory={found[-1].incident.rule: found[-1].incident}) == []


def test_a_frozen_price_is_stale_at_the_third_poll_and_resolved_when_it_moves(life):
    assert life((100, 100.2), (101, 100.2), (102, 100.2), (103, 100.2), (104, 100.3)) == [
        ("stale", "firing", 102.0),
        ("stale", "resolved", 104.0),
    ]


def test_polls_within_minutes_have_the_same_price_and_are_not_stale(life):
    assert life((100, 100.2), (100.1, 100.2), (100.2, 100.2), (100.3, 100.2)) == []


def test_a_price_that_was_old_when_it_was_fetched_is_stale(frame, rules):
    found = transitions(frame({"a": calm(102)}), rules, ages={at(100): 61.0, at(101): None})
    assert states(found) == [("stale", "firing", 100.0), ("stale", "resolved", 101.0)]


def test_fixed_limits_hold_in_the_warm_up_and_are_off_by_default(frame, rules):
    limits = rules.defaults.limits.model_copy(update={"limit_1h_pct": 2.0, "limit_24h_pct": 6.0})
    points = [(0, 100.0), (1, 102.5), (2, 102.5), (24, 107.0), (25, 117.0), (26, 113.0), (27, 113.0)]
    assert transitions(frame({"a": points}), rules) == []
    assert states(transitions(frame({"a": points}), rules, limits=limits)) == [
        ("limit_1h", "firing", 1.0),
        ("limit_1h", "resolved", 2.0),
        ("limit_24h", "firing", 24.0),
        ("limit_1h", "firing", 25.0),
        ("limit_24h", "worse", 25.0),
        ("limit_1h", "resolved", 26.0),
        ("limit_1h", "firing", 26.0),
        ("limit_1h", "resolved", 27.0),
    ]


def test_coins_do_not_see_each_other(frame, rules):
    both = frame({"a": [*calm(100), (100, 93.0)], "b": calm(101, 5.0)})
    assert transitions(both, rules, coin="b") == []
    assert transitions(both, rules) == transitions(both[both["coin"] == "a"], rules) != []


minutes = st.sampled_from([60, 60, 60, 61, 75, 120, 200, 1500])
log_returns = st.sampled_from([0.0, 0.0, 0.004, -0.004, 0.05, -0.05, -0.09, 0.09])
sources = st.sampled_from(["live", "live", "live", "history"])


@settings(max_examples=60, deadline=None)
@given(moves=st.lists(st.tuples(minutes, log_returns, sources), min_size=5, max_size=40))
def test_row_by_row_it_is_the_same_as_all_at_once(moves, rules):
    """Each row with what the warehouse has: 25 hours of rows with their stored columns, and the incidents."""
    limits = rules.defaults.limits.model_copy(update={"limit_1h_pct": 4.0, "limit_24h_pct": 8.0})
    own = rules.for_coin("a").model_copy(update={"limits": limits})
    points = [(hour, price, "live") for hour, price in calm(60)]
    for step, move, source in moves:
        points.append((points[-1][0] + step / 60, points[-1][1] * math.exp(move), source))
    prices = as_prices([("a", at(hours), price, source) for hours, price, source in points])
    stored = prices.copy()
    one_by_one, memory = [], {}
    for number in range(len(prices)):
        ts = prices["ts"][number]
        context = stored[: number + 1]
        context = context[(context["ts"] >= ts - timedelta(hours=25)) | (context.index == number - 1)]
        computed = compute(context, rules, since=ts.to_pydatetime())
        for name in STORED:
            stored.loc[number, name] = computed[name].item()
        (row,) = to_records(computed)
        if row["unchanged_polls"] is None:
            continue
        for transition in decide_all(memory, [observe({**row, "currency": "usd", "age_minutes": 1.0}, own)], own):
            one_by_one.append(transition)
            memory[transition.incident.rule] = transition.incident
    whole = transitions(prices, rules, limits=limits)
    assert one_by_one == whole
    assert len({each.id for each in whole}) == len(whole)
    check_lives(whole)


def check_lives(found):
    """Every incident begins once, only grows, has one end, and none of a kind begins while another one is open."""
    for incident_id in {each.incident.id for each in found}:
        states = [each.incident.state for each in found if each.incident.id == incident_id]
        assert states[0] == "firing"
        assert "firing" not in states[1:]
        assert all(state == "worse" for state in states[1:-1])
        sizes = [abs(each.incident.notified_move) for each in found if each.incident.id == incident_id]
        assert sizes == sorted(sizes)
    for kind in (["move_1h", "move_24h"], ["limit_1h"], ["limit_24h"], ["stale"]):
        open_id = None
        for each in found:
            if each.incident.rule in kind:
                assert open_id in (None, each.incident.id)
                open_id = each.incident.id if each.incident.is_open else None
