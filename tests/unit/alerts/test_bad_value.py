from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from coinwatch.alerts.bad_value import QuarantinedValue, decide_bad_value
from coinwatch.alerts.decide import Incident

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
NOW = TEN + timedelta(hours=9)


def at(hours):
    return TEN + timedelta(hours=hours)


def value(hours=0, **decided):
    return QuarantinedValue(at(hours), "930000", "it is far away", **decided)


FIRING = Incident("bitcoin", "usd", "bad_value", "firing", TEN, TEN, TEN)


def decide(values, accepted=None, last=None):
    price = None if accepted is None else (at(accepted), 93000.0)
    found = decide_bad_value(last, "bitcoin", "usd", values, price, NOW)
    assert all(each.reason for each in found)
    return [(each.note, each.incident.state, each.ts, each.price) for each in found]


def test_without_quarantined_values_nothing_changes():
    assert decide([], accepted=1) == decide([], accepted=1, last=FIRING) == []


def test_the_first_value_opens_an_incident_and_more_of_them_change_nothing():
    assert decide([value(), value(1)], accepted=-1) == [("bad_value", "firing", TEN, 930000.0)]
    assert decide([value(), value(1)], last=FIRING) == []


def test_after_an_ended_incident_a_new_one_begins():
    ended = replace(FIRING, state="resolved", changed_at=at(1))
    assert decide([value(2)], accepted=1, last=ended) == [("bad_value", "firing", at(2), 930000.0)]


@pytest.mark.parametrize(
    ("values", "accepted", "expected"),
    [
        pytest.param([value()], 1, ("bad_value", "resolved", at(1), 93000.0), id="the next price is in line"),
        pytest.param(
            [value(is_confirmed=True, is_decided=True), value(1, is_confirmed=True, is_decided=True)],
            2,
            ("level_confirmed", "resolved", at(2), 93000.0),
            id="polls in a row agree",
        ),
        pytest.param([value(is_decided=True)], -1, ("bad_value", "resolved", NOW, None), id="an operator decided"),
    ],
)
def test_it_is_resolved_by(values, accepted, expected):
    assert decide(values, accepted, FIRING) == [expected]
    assert decide(values, accepted)[-1] == expected, "also when it opens and ends at once"


def test_it_stays_open_while_one_value_is_undecided():
    assert decide([value(is_decided=True), value(1)], accepted=0.5, last=FIRING) == []


def test_a_value_that_is_no_number_has_no_price():
    (opened,) = decide_bad_value(None, "bitcoin", "usd", [replace(value(), value="soon")], None, NOW)
    assert opened.price is None
