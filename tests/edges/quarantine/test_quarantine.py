"""Values that can be no price, all the way: what is stored, what is told, and what a person may do about it."""

from datetime import timedelta

import pytest

from coinwatch.errors import InvalidAction
from coinwatch.health.checks import Watch
from coinwatch.ingest.poll import NoPrice
from coinwatch.quarantine.review import Review
from coinwatch.sandbox.market import RecordedMarket
from coinwatch.times import format_time

HOUR = timedelta(hours=1)


@pytest.fixture
def hours(make_world, noon, clock):
    """Play hours from noon on, each with its own factor on a quiet price: (factors, …) → the world."""
    worlds = {}

    def play(*factors, start=0):
        changes = {noon + (start + number) * HOUR: factor for number, factor in enumerate(factors)}
        if not worlds:
            points = [(noon + number * HOUR, 60_000 + 60.0 * (abs(number) * 7 % 5)) for number in range(-5 * 24, 48)]
            worlds["it"] = make_world(market=Factored(points))
            clock.now = noon - HOUR
            worlds["it"].run()
        world = worlds["it"]
        world.coingecko._market.factors |= changes
        for moment in changes:
            clock.now = moment
            world.run()
        return world

    return play


class Factored(RecordedMarket):
    """Recorded prices, and some hours in which the feed says something else."""

    def __init__(self, points):
        super().__init__("bitcoin", points)
        self.factors = {}

    def price_at(self, coin, moment):
        price = super().price_at(coin, moment)
        hour = max((each for each in self.factors if each <= moment), default=None)
        return price * self.factors[hour] if price is not None and hour is not None else price


def messages(world):
    return [message["payload"]["text"].removeprefix("[SIMULATED] ") for message in world.slack.messages]


def times(world, table, noon):
    return [(ts - noon) // HOUR for (ts,) in world.rows(table, "ts") if ts >= noon]


def quarantine(world, noon):
    rows = world.rows("quarantine", "ts", "state", "decided_by")
    return [((ts - noon) // HOUR, state, by) for ts, state, by in rows]


def test_ten_times_the_price_is_held_back_told_in_the_same_hour_and_over_in_the_next(hours, noon):
    world = hours(1, 10)
    (told,) = messages(world)
    assert told.startswith("BTC: a value of 60")
    assert "was held back: it is 9" in told
    assert told.endswith("above the price before, 60000.0; it is in quarantine, and nothing is computed from it")
    assert times(world, "prices", noon) == times(world, "price_statistics", noon) == [0]
    assert times(world, "raw_prices", noon) == [0, 1]
    hours(1, 1, start=2)
    assert times(world, "prices", noon) == [0, 2, 3]
    assert quarantine(world, noon) == [(1, "held", None)]
    assert len(messages(world)) == 2
    assert "BTC has a price again" in messages(world)[1]
    assert "the next price was in line again" in messages(world)[1]
    assert world.rows("alerts", "rule", "state") == [("bad_value", "firing"), ("bad_value", "resolved")]


def test_three_pulls_that_agree_are_released_and_the_move_is_told(hours, noon):
    world = hours(1, 0.6, 0.6)
    assert times(world, "prices", noon) == [0]
    hours(0.6, start=3)
    assert times(world, "prices", noon) == times(world, "price_statistics", noon) == [0, 1, 2, 3]
    assert [(hour, state) for hour, state, _ in quarantine(world, noon)] == [(1, "released"), (2, "released")]
    told = messages(world)
    assert len(told) == 2
    assert "BTC really is at $36," in told[1]
    assert "BTC −39." in told[1]
    rules = {(rule, state) for rule, state in world.rows("alerts", "rule", "state")}
    assert rules == {("bad_value", "firing"), ("level_confirmed", "resolved"), ("move_1h", "firing")}
    hours(0.6, start=4)
    assert len(messages(world)) == 2


def test_a_price_of_zero_is_told_although_it_starts_no_processing(hours, noon, clock):
    world = hours(1)
    world.coingecko.fail("price_times", factor=0)
    clock.now = noon + HOUR
    with pytest.raises(NoPrice, match="no price"):
        world.ingest().fetch_prices(clock.now)
    assert quarantine(world, noon) == [(1, "held", None)]
    process = world.process()
    watch = Watch(world.settings, process.warehouse, process.rules, clock)
    watch.check_feed()
    watch.deliver_waiting(world.channels(), "http://airflow", simulated=True)
    (told,) = [text for text in messages(world) if "quarantine" in text]
    assert told.startswith("BTC: a value of 0.0 was held back: 0.0 is no price")
    world.coingecko.recover()
    hours(1, start=2)
    assert "BTC has a price again" in messages(world)[-1]


def review(world, clock):
    return Review(world.settings, world.warehouse(), clock)


def params(action, coin="*", ts="*", reason=""):
    return {"action": action, "coin": coin, "ts": ts, "reason": reason}


def process(world):
    for step in world.process_steps():
        step()


def test_an_operator_releases_a_value_and_what_follows_is_computed_again(hours, noon, clock, caplog):
    world = hours(1, 0.7)
    before = world.files()["bitcoin_processed.csv"]
    caplog.set_level("INFO")
    assert review(world, clock).decide(params("list"), "run") == {}
    assert "held back: bitcoin 2026-11-22T13:00:00Z (live): 42" in caplog.text
    ts = format_time(noon + HOUR)
    released = review(world, clock).decide(params("release", "bitcoin", ts, "seen on two exchanges"), "manual-1")
    assert released == {"bitcoin": [ts]}
    clock.now += timedelta(minutes=10)
    process(world)
    assert times(world, "price_statistics", noon) == [0, 1]
    assert world.files()["bitcoin_processed.csv"] != before
    ((_, state, by),) = quarantine(world, noon)
    assert (state, by) == ("released", "operator: seen on two exchanges (manual-1)")
    assert ("move_1h", "firing") in world.rows("alerts", "rule", "state")
    assert ("bad_value", "resolved") in world.rows("alerts", "rule", "state")


def test_an_operator_rejects_a_value_and_it_agrees_with_none_after_it(hours, noon, clock):
    world = hours(1, 0.7)
    assert review(world, clock).decide(params("reject", reason="typo at the source"), "manual-1") == {}
    hours(0.7, 0.7, start=2)
    assert times(world, "prices", noon) == [0]
    assert [(hour, state) for hour, state, _ in quarantine(world, noon)] == [(1, "rejected"), (2, "held"), (3, "held")]
    hours(0.7, start=4)
    assert times(world, "prices", noon) == [0, 2, 3, 4]


@pytest.mark.parametrize(
    ("order", "said"),
    [
        pytest.param(params("release"), "release needs a coin or a time", id="everything"),
        pytest.param(params("release", ts="13 o'clock"), "is no time", id="no time"),
        pytest.param(params("reject", ts="2026-11-22T09:00:00Z"), "There is: bitcoin 2026-11-22T13:00:00Z", id="none"),
        pytest.param(params("reject", "ethereum"), "no value of ethereum at \\* is held back", id="another coin"),
    ],
)
def test_what_cannot_be_decided_says_what_can(hours, clock, order, said):
    world = hours(1, 0.7)
    with pytest.raises(InvalidAction, match=said):
        review(world, clock).decide(order, "run")


def test_a_value_that_is_no_number_cannot_be_released(hours, noon, clock):
    world = hours(1)
    world.coingecko.fail("price_times", factor=0)
    clock.now = noon + HOUR
    with pytest.raises(NoPrice, match="no price"):
        world.ingest().fetch_prices(clock.now)
    with pytest.raises(InvalidAction, match="can be no price; reject it instead"):
        review(world, clock).decide(params("release", "bitcoin"), "run")


def test_an_absurd_hour_of_history_is_no_price(noon, make_world, clock):
    points = [(noon + number * HOUR, 60_000 + 60.0 * (abs(number) * 7 % 5)) for number in range(-5 * 24, 48)]
    market = Factored(points)
    market.factors = {noon - 20 * HOUR: 0.1, noon - 19 * HOUR: 1.0}
    world = make_world("absurd", market=market)
    clock.now = noon
    world.run()
    assert quarantine(world, noon) == [(-20, "held", None)]
    assert noon - 20 * HOUR not in [ts for (ts,) in world.rows("prices", "ts")]
    assert messages(world) == []


def test_seven_percent_the_same_twelve_and_back_is_one_begin_one_worse_and_one_end(hours, noon):
    world = hours(1, 0.93, 0.9301, 0.88, 1, 1.0002)
    assert [(rule, state, (ts - noon) // HOUR) for ts, rule, state in world.rows("alerts", "ts", "rule", "state")] == [
        ("move_1h", "firing", 1),
        ("move_1h", "resolved", 4),
        ("move_1h", "worse", 3),
    ]
    told = messages(world)
    assert len(told) == 3
    assert told[0].startswith("BTC −6.")
    assert told[1].startswith("BTC −1")
    assert told[2].startswith("BTC has calmed down at $60,")
