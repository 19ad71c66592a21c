import json
import logging
from contextlib import suppress
from datetime import timedelta

import pytest
from sqlalchemy import delete, insert, select

from coinwatch.coingecko.budget import Budget
from coinwatch.errors import CoinwatchError
from coinwatch.health.checks import Watch
from coinwatch.health.task_failures import Failures, TaskRun
from coinwatch.health.troubles import raise_trouble
from coinwatch.s3.store import S3Error
from coinwatch.sandbox.faults import Fault
from coinwatch.sandbox.http import Response, SandboxServer
from coinwatch.slack.deliver import Slack
from coinwatch.slack.webhook import WebhookDead
from coinwatch.warehouse import schema

HOUR = timedelta(hours=1)
QUARTER = timedelta(minutes=15)


@pytest.fixture
def warehouse(world):
    return world.warehouse()


@pytest.fixture
def watch(world, warehouse):
    """The watch of today's settings."""

    def watch(**options):
        settings = world.settings.model_copy(update=options.pop("settings", {}))
        return Watch(settings, warehouse, world.process().rules, world.clock, **options)

    return watch


@pytest.fixture
def store(warehouse):
    """Store a price: (time, coin)."""

    def store(ts, coin="bitcoin"):
        row = {"coin": coin, "currency": "usd", "ts": ts, "price": 1, "source": "live", "snapshot": "s"}
        with warehouse.begin() as connection:
            connection.execute(insert(schema.prices), [row])

    return store


def told(warehouse):
    c = schema.trouble_messages.c
    with warehouse.begin() as connection:
        query = select(c.key, c.state, c.what).order_by(c.raised_at, c.id)
        return [tuple(row) for row in connection.execute(query)]


def keys(warehouse):
    return [(key, state) for key, state, _ in told(warehouse)]


def test_while_all_is_well_nothing_is_told(world, watch, warehouse, noon, clock):
    world.run()
    for minutes in range(5, 60, 15):
        clock.now = noon + timedelta(minutes=minutes)
        assert watch().check_feed() == []
    assert told(warehouse) == []


def test_a_coin_without_a_fresh_price_for_two_hours_is_told_once_and_when_it_has_one_again(
    watch, warehouse, store, noon, clock
):
    store(noon)
    for quarters in range(20):
        clock.now = noon + QUARTER * quarters
        watch().check_feed()
    store(noon + 5 * HOUR)
    clock.now = noon + 5 * HOUR
    assert watch().check_feed() == []
    assert [row for row in told(warehouse) if row[0] == "stale:bitcoin"] == [
        ("stale:bitcoin", "begun", "bitcoin is not being watched: the last one is of 2026-11-22 12:00 UTC."),
        (
            "stale:bitcoin",
            "over",
            (
                "There is a price of 2026-11-22 17:00 UTC. "
                "It was: bitcoin is not being watched: the last one is of 2026-11-22 12:00 UTC."
            ),
        ),
    ]


def test_a_coin_that_is_new_gets_its_time_and_one_that_is_no_longer_watched_is_forgotten(
    watch, warehouse, store, noon, clock
):
    both = {"coins": ("bitcoin", "ethereum")}
    store(noon)
    assert watch(settings=both).check_feed() == []
    clock.now = noon + 2 * HOUR
    store(clock.now)
    assert watch(settings=both).check_feed() == ["No fresh price of ethereum"]
    assert watch().check_feed() == []
    assert keys(warehouse) == [("stale:ethereum", "begun"), ("stale:ethereum", "over")]


def test_a_run_that_is_late_is_told_before_two_hours_have_passed(watch, warehouse, store, noon, clock):
    store(noon)
    clock.now = noon + timedelta(minutes=89)
    assert watch().check_feed() == []
    clock.now = noon + timedelta(minutes=90)
    assert watch().check_feed() == ["The run of the hour is late"]
    store(clock.now)
    clock.now += QUARTER
    assert watch().check_feed() == []
    assert told(warehouse) == [
        (
            "late",
            "begun",
            "30 min after the full hour there is no price of 2026-11-22 13:00 UTC, and no task has failed.",
        ),
        (
            "late",
            "over",
            (
                "The price of 2026-11-22 13:30 UTC is there. It was: 30 min after the full hour there is no price of "
                "2026-11-22 13:00 UTC, and no task has failed."
            ),
        ),
    ]


def test_a_run_that_is_late_because_a_task_failed_is_no_second_trouble(watch, warehouse, store, noon, clock):
    store(noon)
    clock.now = noon + timedelta(minutes=90)
    with warehouse.begin() as connection:
        raise_trouble(connection, "task:ingest_prices.fetch_prices", title="t", what="w", action="a", at=clock.now)
    assert watch().check_feed() == ["t"]


def alert(noon, number=1):
    return {
        "id": f"a-{number}",
        "coin": "bitcoin",
        "currency": "usd",
        "rule": "move_1h",
        "severity": "warning",
        "state": "firing",
        "ts": noon,
        "message": "BTC moved",
        "raised_at": noon,
        "delivery": "pending",
        "run_id": "r",
    }


def test_alerts_that_wait_for_an_hour_are_told_and_their_delivery_ends_it(world, watch, warehouse, store, noon, clock):
    store(noon)
    with warehouse.begin() as connection:
        connection.execute(insert(schema.alerts), [alert(noon), alert(noon, 2)])
    clock.now = noon + timedelta(minutes=59)
    assert watch().check_feed() == []
    clock.now = noon + HOUR
    world.slack.answer_next(503, "")
    assert watch().deliver_waiting(world.channels(), "http://airflow", simulated=True) == 0
    assert watch().check_feed() == ["Alerts do not reach Slack"]
    assert watch().deliver_waiting(world.channels(), "http://airflow", simulated=True) == 2
    assert [message["payload"]["text"] for message in world.slack.messages] == [
        "[SIMULATED] BTC moved · BTC moved",
        "[SIMULATED] Coinwatch itself: Alerts do not reach Slack (is over)",
    ]
    assert told(warehouse)[0] == (
        "undelivered",
        "begun",
        (
            "2 alerts wait, the oldest since 2026-11-22 12:00 UTC. Slack answered 503 ''; the alerts are kept, and "
            "sent again later"
        ),
    )
    assert watch().check_feed() == []


def test_that_slack_does_not_answer_does_not_hold_up_the_watch_but_a_dead_webhook_is_red(world, watch, warehouse, noon):
    with warehouse.begin() as connection:
        connection.execute(insert(schema.alerts), [alert(noon)])
    world.slack.answer_next(429, "rate_limited", **{"Retry-After": "3600"})
    assert watch().deliver_waiting(world.channels(), "http://airflow", simulated=True) == 0
    world.clock.now += 2 * HOUR
    world.slack.answer_next(404, "no_service")
    with pytest.raises(WebhookDead):
        watch().deliver_waiting(world.channels(), "http://airflow", simulated=True)
    assert "Alerts do not reach Slack" not in watch().check_feed()


def test_uploads_that_pile_up_for_two_hours_are_told(world, watch, warehouse, noon, clock):
    world.run()
    bucket = {"s3_bucket": "prices"}
    assert watch(settings=bucket).check_feed() == []
    with warehouse.begin() as connection:
        connection.execute(insert(schema.pending_uploads), [{"layer": "raw", "hour": noon}])
        connection.execute(delete(schema.log_positions).where(schema.log_positions.c.log.startswith("manifest")))
    size = (world.settings.archive_path / "manifest.jsonl").stat().st_size
    for quarters in range(9):
        clock.now = noon + QUARTER * quarters
        titles = watch(settings=bucket).check_feed()
        assert ("S3 does not get everything" in titles) == (quarters == 8)
    assert watch().check_feed() == titles
    assert [row for row in told(warehouse) if row[0] == "uploads"] == [
        (
            "uploads",
            "begun",
            f"1 partitions and the snapshots in the last {size} bytes of the manifest are not in s3://prices yet.",
        )
    ]
    for step in world.process_steps():
        step()
    assert "S3 does not get everything" not in watch(settings=bucket).check_feed()


def test_a_task_that_failed_while_the_warehouse_was_away_is_told_of_and_forgotten_when_it_never_runs_again(
    world, watch, noon, clock
):
    def away():
        raise S3Error("the warehouse is away")

    failures = Failures(world.settings.data_dir / "failed_tasks", clock, away, Slack, simulated=True)
    failures.failed(TaskRun("ingest_prices", "fetch_history", "bitcoin", None), S3Error("x"))
    assert watch().check_feed() == ["Task ingest_prices.fetch_history[bitcoin] fails"]
    clock.now = noon + timedelta(hours=47)
    assert "Task ingest_prices.fetch_history[bitcoin] fails" in watch().check_feed()
    clock.now = noon + timedelta(hours=48)
    assert "Task ingest_prices.fetch_history[bitcoin] fails" not in watch().check_feed()
    assert list((world.settings.data_dir / "failed_tasks").glob("*.json")) == []
    assert "Task ingest_prices.fetch_history[bitcoin] fails" not in watch().check_feed()


def test_requests_that_get_short_are_told_and_when_they_do_no_more(watch, warehouse):
    def budget(used):
        return lambda: Budget(used, used + 100, 10_000)

    assert watch(budget=budget(7_999)).check_feed() == []
    assert watch(budget=budget(8_000)).check_feed() == ["Requests to CoinGecko get short"]
    assert watch(budget=budget(10)).check_feed() == []
    assert keys(warehouse) == [("budget", "begun"), ("budget", "over")]


def test_a_coin_that_coingecko_no_longer_knows_is_told_at_the_third_answer_and_when_it_is_back(
    world, watch, warehouse, noon, clock
):
    world.run()
    world.coingecko.faults.append(Fault("coin_missing"))
    for number in range(1, 4):
        clock.now = noon + HOUR * number
        with suppress(CoinwatchError):
            world.ingest().fetch_prices(clock.now)
        titles = watch().check_feed()
        assert ("CoinGecko does not know bitcoin" in titles) == (number == 3)
    world.coingecko.faults.clear()
    clock.now = noon + HOUR * 4
    world.run()
    assert watch().check_feed() == []
    assert [row for row in told(warehouse) if row[0] == "unknown:bitcoin"] == [
        (
            "unknown:bitcoin",
            "begun",
            "3 answers in a row do not have it, since 2026-11-22 13:00 UTC. Ids that are left: none.",
        ),
        (
            "unknown:bitcoin",
            "over",
            (
                "CoinGecko knows bitcoin again, or it is not watched any more. It was: 3 answers in a row do not have "
                "it, since 2026-11-22 13:00 UTC. Ids that are left: none."
            ),
        ),
    ]


def test_others_can_look_at_more(watch):
    def budget(connection, now):
        raise_trouble(connection, "budget", title="Credits run out", what="80 %", action="a", at=now)

    assert watch(more_checks=[budget]).check_feed() == ["Credits run out"]


def test_the_heartbeat_tells_how_things_stand(world, watch, store, noon, clock):
    store(noon)
    clock.now = noon + 3 * HOUR
    watch().check_feed()
    assert watch(settings={"coins": ("bitcoin", "ethereum")}).write_heartbeat() == (
        f"written to {world.settings.data_dir / 'heartbeat.json'}"
    )
    assert json.loads((world.settings.data_dir / "heartbeat.json").read_bytes()) == {
        "at": "2026-11-22T15:00:00Z",
        "ok": False,
        "troubles": [
            {
                "key": "stale:bitcoin",
                "title": "No fresh price of bitcoin",
                "what": "bitcoin is not being watched: the last one is of 2026-11-22 12:00 UTC.",
                "since": "2026-11-22T15:00:00Z",
            }
        ],
        "untold_troubles": 0,
        "waiting_alerts": 0,
        "newest_price": {"bitcoin": "2026-11-22T12:00:00Z", "ethereum": None},
    }


class Switch(SandboxServer):
    """A dead man's switch."""

    def __init__(self, status=200):
        super().__init__()
        self.calls = []
        self.status = status

    def respond(self, request):
        self.calls.append((request.method, request.path))
        return Response(self.status, b"OK")


def calling(url):
    from pydantic import SecretStr

    return {"heartbeat_url": SecretStr(url)}


def test_the_heartbeat_is_sent_on_without_a_word_of_where(watch, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    with Switch() as switch:
        said = watch(settings=calling(f"{switch.origin}/ping/s3cr3t")).write_heartbeat()
    assert switch.calls == [("GET", "/ping/s3cr3t")]
    assert said.endswith("heartbeat.json, and sent on (answer 200)")
    assert "s3cr3t" not in said + caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("status", [404, 503])
def test_a_switch_that_does_not_answer_well_is_logged_and_no_failure(watch, caplog, status):
    with Switch(status) as switch:
        watch(settings=calling(f"{switch.origin}/ping/s3cr3t")).write_heartbeat()
    assert f"the heartbeat could not be sent on (HTTPError {status})" in caplog.messages
    assert "s3cr3t" not in caplog.text


def test_a_switch_that_is_not_there_is_logged_and_no_failure(watch, caplog, unused_port):
    said = watch(settings=calling(f"http://127.0.0.1:{unused_port}/s3cr3t")).write_heartbeat()
    assert said.endswith("could not be sent on (URLError)")
    assert "s3cr3t" not in caplog.text


def test_while_nobody_can_be_told_of_a_trouble_the_heartbeat_is_not_sent_on(world, watch, warehouse, noon, clock):
    with warehouse.begin() as connection:
        raise_trouble(connection, "uploads", title="t", what="w", action="a", at=noon)
    with Switch() as switch:
        options = calling(f"{switch.origin}/ping")
        clock.now = noon + timedelta(minutes=59)
        watch(settings=options).write_heartbeat()
        clock.now = noon + HOUR
        assert watch(settings=options).write_heartbeat().endswith("and not sent on")
        assert len(switch.calls) == 1
        watch().deliver_waiting(world.channels(), "http://airflow", simulated=True)
        watch(settings=options).write_heartbeat()
        assert len(switch.calls) == 2
