import csv
from dataclasses import replace
from datetime import timedelta

import pytest

from coinwatch.archive.raw_log import append_raw_prices
from coinwatch.record import parse_raw_prices
from coinwatch.s3.uploads import upload_to_s3
from coinwatch.slack.deliver import send_slack_alerts
from coinwatch.slack.webhook import Slack

HOUR = timedelta(hours=1)

KILL_POINTS = (3, 25, 100, 400, 1600)


def process(world):
    for step in world.process_steps():
        step()


def ingest(world, as_of):
    for step in world.ingest_steps(as_of):
        step()


def read_csv(content):
    return list(csv.reader(content.decode().splitlines()))


def partition_rows(objects, layer):
    """The rows of all partitions of a layer, each checked to lie in its own hour."""
    rows = []
    for key, content in objects.items():
        if key.startswith(f"{layer}/"):
            date, hour = key.split("/")[1:3]
            prefix = f"{date.removeprefix('date=')}T{hour.removeprefix('hour=')}:"
            of_hour = read_csv(content)[1:]
            assert all(row[0].startswith(prefix) for row in of_hour), key
            rows += of_hour
    return sorted(rows)


def check_everything_agrees(world):
    """Raw log = raw partitions; processed CSV = processed partitions = warehouse; archive = archive objects."""
    files, objects = world.files(), world.objects()
    assert partition_rows(objects, "raw") == sorted(read_csv(files["bitcoin_raw.csv"])[1:])
    processed = read_csv(files["bitcoin_processed.csv"])[1:]
    assert [row[0] for row in processed] == sorted(row[0] for row in processed)
    assert partition_rows(objects, "processed") == sorted(processed)
    assert len(processed) == len(world.rows("price_statistics", "ts")) == len(world.rows("prices", "ts"))
    snapshots = {name.removeprefix("archive/") for name in files if name.endswith((".json", ".csv")) and "/" in name}
    archived = {key.rpartition("/")[2]: body for key, body in objects.items() if key.startswith("archive/")}
    assert {name: files[f"archive/{name}"] for name in snapshots} == archived


class TestOnBothDatabases:
    """The pipeline on SQLite and on PostgreSQL; the other tests run on SQLite alone."""

    @pytest.fixture
    def world_warehouse_url(self, new_warehouse_url):
        return new_warehouse_url

    def test_an_hour_goes_all_the_way(self, world, noon):
        world.run()
        check_everything_agrees(world)
        (alert,) = world.rows("alerts", "id", "rule", "state", "ts", "delivery", "delivered_at", "run_id")
        assert alert == ("move_1h-bitcoin-usd-20261122T120000Z", "move_1h", "firing", noon, "delivered", noon, "run")
        (message,) = world.slack.messages
        assert message["payload"]["text"].startswith("[SIMULATED] BTC \N{MINUS SIGN}7.")
        assert "in 1 h to $90," in message["payload"]["text"]
        assert world.rows("pending_work", "step") == []
        assert world.rows("pending_uploads", "hour") == []


def test_running_it_again_changes_nothing_and_the_next_hours_add_a_row_each(world, noon, clock):
    world.run()
    before = (world.files(), world.tables(), world.objects(), list(world.slack.messages))
    process(world)
    world.run()
    assert (world.files(), world.tables(), world.objects(), list(world.slack.messages)) == before
    for number in range(1, 4):
        clock.now = noon + HOUR * number
        world.run()
    check_everything_agrees(world)
    assert len(world.slack.messages) == 1
    assert [ts for (ts,) in world.rows("prices", "ts")][-4:] == [noon + HOUR * number for number in range(4)]


def test_it_is_the_same_whether_history_comes_before_the_live_price_or_after_it(make_world, noon):
    after = make_world("after", s3_prefix="after")
    fetch, append, *heal = after.ingest_steps(noon)
    for step in (fetch, append, *after.process_steps(), *heal, *after.process_steps()):
        step()
    before = after.beside("before")
    fetch, append, *heal = before.ingest_steps(noon)
    for step in (*heal, *before.process_steps(), fetch, append, *before.process_steps()):
        step()
    assert before.files()["bitcoin_processed.csv"] == after.files()["bitcoin_processed.csv"]
    assert before.rows("alerts", "id", "message") == after.rows("alerts", "id", "message")
    check_everything_agrees(before)
    check_everything_agrees(after)


def test_without_slack_alerts_are_kept_and_delivered_once_it_is_there(world, noon, caplog):
    steps = world.process_steps()
    steps[3] = lambda: send_slack_alerts(world.app(slack=Slack()))
    for step in [*world.ingest_steps(noon), *steps]:
        step()
    assert world.rows("alerts", "delivery") == [("not_configured",)]
    assert caplog.text.count("no connection slack_default") == 1
    process(world)
    assert world.rows("alerts", "delivery") == [("delivered",)]
    assert len(world.slack.messages) == 1


def test_without_a_bucket_nothing_is_uploaded_and_everything_once_there_is_one(world, noon, caplog):
    steps = world.process_steps()
    steps[5] = lambda: upload_to_s3(world.app(s3=None))
    for step in [*world.ingest_steps(noon), *steps]:
        step()
    assert world.objects() == {}
    assert caplog.text.count("COINWATCH_S3_BUCKET is empty") == 1
    process(world)
    check_everything_agrees(world)


def test_a_raw_log_that_was_replaced_is_read_again_and_doubles_nothing(world, caplog):
    world.run()
    before = (world.tables(), world.objects())
    path = world.settings.raw_path("bitcoin")
    header, *lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(header + b"".join(sorted(lines)))
    process(world)
    assert "was changed before byte" in caplog.text
    tables = world.tables()
    # All hours are checked for gaps again.
    for table in ("log_positions", "pipeline_issues", "checked_hours"):
        del tables[table], before[0][table]
    assert (tables, world.objects()) == before


def test_a_price_of_another_currency_is_a_series_of_its_own(world):
    world.run()
    (row,) = [
        row
        for row in parse_raw_prices(world.files()["bitcoin_raw.csv"].decode().partition("\n")[2])
        if row.source == "live"
    ]
    append_raw_prices(world.settings.raw_path("bitcoin"), [replace(row, currency="eur", price="1")])
    process(world)
    check_everything_agrees(world)
    assert world.rows("price_statistics", "currency", "points_24h")[0] == ("eur", 1)


def crash(world, number, point, kill_at_line, last):
    """Run the steps up to one that is killed at a point, and on from there; return whether it was killed."""
    world.slack.messages.clear()
    ingest(world, world.clock.now)
    steps = world.process_steps()[:last]
    for step in steps[:number]:
        step()
    killed = kill_at_line(steps[number], point)
    for step in steps[number:]:
        step()
    return killed


@pytest.mark.parametrize("number", range(5), ids=["load", "compute", "detect", "send", "export"])
def test_a_step_killed_at_any_point_and_run_again_ends_as_if_nothing_had_happened(make_world, kill_at_line, number):
    world = make_world("reference", s3_prefix="reference")
    crash(world, 0, 10**9, kill_at_line, 5)
    files, tables = world.files(), world.tables()
    messages = [message["payload"] for message in world.slack.messages]
    assert len(messages) == 1
    for point in KILL_POINTS:
        other = world.beside(f"killed-{point}")
        killed = crash(other, number, point, kill_at_line, 5)
        assert (other.files(), other.tables()) == (files, tables), point
        sent = [message["payload"] for message in world.slack.messages]
        # Killed between Slack's answer and the mark, it is sent once more: the same message, with the same id.
        assert sent == messages or (number == 3 and sent == messages * 2), point
        if not killed:
            break
    assert point > 3


def test_killed_between_uploads_the_rest_follows_and_nothing_is_missing_or_double(make_world, kill_at_line):
    world = make_world("reference", s3_prefix="reference")
    crash(world, 0, 10**9, kill_at_line, 6)
    tables, objects = world.tables(), world.objects()
    for point in (20, 120, 600, 3000):
        other = world.beside(f"killed-{point}")
        assert crash(other, 5, point, kill_at_line, 6)
        assert other.tables() == tables, point
        assert other.objects() == objects, point
