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


FALL = ("move_1h", "firing", 100.0)
SPIKE = [(100, 93.0), (101, 100.0)]
SPIKE_IS_OVER = [FALL, ("spike_reverted", "corrected", 101.0)]
SLOW_FALL = [(100 + hour, 100 - 0.7 * (hour + 1)) for hour in range(16)]


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        pytest.param(
            [(100, 93.0), (101, 93.0), (102, 88.0), (103, 100.0), (104, 100.0)],
            [FALL, ("move_1h", "worse", 102.0), ("move_1h", "resolved", 103.0)],
            id="minus 7 percent, the same, minus 12 percent, and back",
        ),
        # The threshold of a day is 8.6 %; 24 hours after the fall the price is 14 % above what it was then.
        pytest.param(
            [(100, 93.0), (101, 93.0), (102, 88.0), *stays(103, 100.0, 30)],
            [FALL, ("move_1h", "worse", 102.0), ("move_1h", "resolved", 103.0)],
            id="what came back is no move the other way a day later",
        ),
        pytest.param([(100, 85.0), *stays(101, 100.0, 30)], SPIKE_IS_OVER, id="nor is a spike"),
        pytest.param(
            [(100, 88.0), *stays(101, 100.0, 19), *[(120 + hour, 100 + 2.0 * hour) for hour in range(8)]],
            [*SPIKE_IS_OVER, ("move_24h", "firing", 126.0)],
            id="but a real move a day later is one",
        ),
        # 4 % are under 0.7 of the day's threshold, 15 % are above.
        pytest.param(stays(100, 96.0, 30), [FALL, ("move_1h", "resolved", 106.0)], id="a move that stays"),
        pytest.param(stays(100, 85.0, 30), [FALL, ("move_1h", "resolved", 124.0)], id="in an abnormal day"),
        pytest.param([*SPIKE, (102, 100.4)], SPIKE_IS_OVER, id="a spike"),
        pytest.param(
            [(100, 93.0), (101, 109.0)], [*SPIKE_IS_OVER, ("move_1h", "firing", 101.0)], id="beyond the beginning"
        ),
        pytest.param([*SPIKE, (102, 93.0), (103, 93.0)], SPIKE_IS_OVER, id="quiet after an end"),
        pytest.param([*SPIKE, (102, 88.0)], [*SPIKE_IS_OVER, ("move_1h", "firing", 102.0)], id="unless much worse"),
        pytest.param(
            [*SPIKE, *stays(102, 100.0, 4), (106, 93.0)],
            [*SPIKE_IS_OVER, ("move_1h", "firing", 106.0)],
            id="or six hours later",
        ),
        # 15 % down, a little up, and 4 % down once more seven hours later; then it rises, and is still 17 % down.
        pytest.param(
            [(100, 85.0), *stays(101, 86.0, 6), (107, 82.5), (108, 83.5), *stays(109, 83.4, 4)],
            [FALL, ("move_1h", "worse", 107.0)],
            id="an abnormal hour after the quiet time goes on, and a rise after it does not",
        ),
        pytest.param(
            [*SLOW_FALL, *stays(116, 88.8, 24)],
            [("move_24h", "firing", 111.0), ("move_24h", "resolved", 131.0)],
            id="a slow fall",
        ),
        pytest.param(
            [*SLOW_FALL, (116, 83.0), *stays(117, 83.0, 3)],
            [("move_24h", "firing", 111.0), ("move_24h", "worse", 116.0)],
            id="with an abnormal hour",
        ),
        pytest.param(
            [(100, 100.2), (101, 100.2), (102, 100.2), (103, 100.2), (104, 100.3)],
            [("stale", "firing", 102.0), ("stale", "resolved", 104.0)],
            id="a frozen price",
        ),
        pytest.param([(100, 100.2), (100.1, 100.2), (100.2, 100.2), (100.3, 100.2)], [], id="polls within minutes"),
    ],
)
def test_after_calm_hours(frame, rules, points, expected):
    assert states(transitions(frame({"a": [*calm(100), *points]}), rules)) == expected


def test_two_falls_in_a_row_are_one_fall_from_where_the_first_began(frame, rules):
    prices = frame({"a": [*calm(100), (100, 93.0), (101, 93.0), (102, 88.0)]})
    worse = transitions(prices, rules)[-1]
    assert worse.hours == 3.0
    assert worse.change_pct == pytest.approx(-12.4378, abs=1e-3)
    assert worse.id == "move_1h-a-usd-20260105T040000Z-worse-20260105T060000Z"


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


@pytest.fixture(scope="module")
def limited(rules):
    """The rules with fixed limits."""
    limits = rules.defaults.limits.model_copy(update={"limit_1h_pct": 4.0, "limit_24h_pct": 8.0})
    return rules.for_coin("a").model_copy(update={"limits": limits})


def test_row_by_row_it_is_the_same_as_all_at_once(rules, limited):
    """Each row with what the warehouse has: 25 hours of rows with their stored columns, and the incidents."""
    points = [*calm(50), (50, 93.0), (51, 100.0), *stays(52, 100.0, 5), (57.2, 93.0), (58, 93.0), (59, 85.0)]
    points += [(60, 100.0), *stays(61, 100.0, 4), *[(hour, 100.3) for hour in (65, 66, 67)], *stays(68, 100.4, 8)]
    points += [*((hour - 24, price) for hour, price in SLOW_FALL), (92, 84.5), (93, 77.5), *stays(94, 77.5, 4)]
    points += [(100, 77.6), *stays(104, 88.0, 20)]
    rows = [("a", at(hours), price, "history" if hours in (63, 80, 95) else "live") for hours, price in points]
    prices = as_prices(rows)
    stored = prices.copy()
    one_by_one, memory, warm = [], {}, 40
    # The first ones come at once, as at the first start.
    first = compute(prices[:warm], rules)
    for name in STORED:
        stored.loc[: warm - 1, name] = first[name]
    for number in range(warm, len(prices)):
        ts = prices["ts"][number]
        context = stored[: number + 1]
        context = context[(context["ts"] >= ts - timedelta(hours=25)) | (context.index == number - 1)]
        computed = compute(context, rules, since=ts.to_pydatetime())
        for name in STORED:
            stored.loc[number, name] = computed[name].item()
        (row,) = to_records(computed)
        if row["unchanged_polls"] is None:
            continue
        seen = observe({**row, "currency": "usd", "age_minutes": 1.0}, limited)
        for transition in decide_all(memory, [seen], limited):
            one_by_one.append(transition)
            memory[transition.incident.rule] = transition.incident
    whole = transitions(prices, rules, limits=limited.limits)
    assert one_by_one == whole
    every_kind = {("spike_reverted", "corrected"), ("stale", "firing"), ("stale", "resolved")}
    every_kind |= {
        (rule, state)
        for rule in ("move_1h", "move_24h", "limit_1h", "limit_24h")
        for state in ("firing", "worse", "resolved")
    }
    assert {(each.note, each.incident.state) for each in whole} == every_kind


minutes = st.sampled_from([60, 60, 60, 61, 75, 120, 200, 1500])
log_returns = st.sampled_from([0.0, 0.0, 0.004, -0.004, 0.05, -0.05, -0.09, 0.09])
sources = st.sampled_from(["live", "live", "live", "history"])


@settings(max_examples=60, deadline=None)
@given(moves=st.lists(st.tuples(minutes, log_returns, sources), min_size=5, max_size=40))
def test_an_incident_begins_once_only_grows_and_has_one_end(moves, rules, limited):
    """And none of a kind begins while another one is open."""
    points = [(hour, price, "live") for hour, price in calm(60)]
    for step, move, source in moves:
        points.append((points[-1][0] + step / 60, points[-1][1] * math.exp(move), source))
    prices = as_prices([("a", at(hours), price, source) for hours, price, source in points])
    found = transitions(prices, rules, limits=limited.limits)
    assert len({each.id for each in found}) == len(found)
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
