"""Contract, section 6: the objects on S3 after two hours."""

import csv
import re
from datetime import timedelta

import pytest

from coinwatch.s3.uploads import upload_latest

PARTITION = r"date=\d{4}-\d\d-\d\d/hour=\d\d"


@pytest.fixture
def objects(make_world, noon, clock):
    world = make_world(s3_prefix="some/prefix")
    for hour in range(2):
        clock.now = noon + timedelta(hours=hour)
        world.run()
    upload_latest(world.app())
    return world, world.objects()


def test_every_key_is_one_of_the_contract(objects):
    _, found = objects
    allowed = re.compile(
        rf"(raw|processed)/{PARTITION}/prices\.csv|archive/{PARTITION}/\d{{8}}T\d{{6}}Z[\w.-]*\.(json|csv)"
        r"|latest/bitcoin_processed\.csv"
    )
    assert [key for key in found if not allowed.fullmatch(key)] == []
    assert {key.partition("/")[0] for key in found} == {"raw", "processed", "archive", "latest"}


@pytest.mark.parametrize("layer", ["raw", "processed"])
def test_a_partition_has_exactly_the_rows_of_its_hour_and_all_of_them_together_are_the_csv(objects, layer):
    world, found = objects
    rows = []
    for key, body in found.items():
        if key.startswith(f"{layer}/"):
            date, hour = re.search(r"date=([\d-]+)/hour=(\d\d)", key).groups()
            of_hour = list(csv.reader(body.decode().splitlines()))[1:]
            assert of_hour
            assert all(row[0].startswith(f"{date}T{hour}:") for row in of_hour)
            rows += of_hour
    stored = list(csv.reader(world.files()[f"bitcoin_{layer}.csv"].decode().splitlines()))[1:]
    assert sorted(rows) == sorted(stored)


def test_the_archive_is_the_one_on_disk_and_latest_the_whole_processed_csv(objects):
    world, found = objects
    files = world.files()
    archived = {key.rpartition("/")[2]: body for key, body in found.items() if key.startswith("archive/")}
    snapshots = {
        name.removeprefix("archive/"): body
        for name, body in files.items()
        if re.fullmatch(r"archive/[\w.-]+\.(json|csv)", name)
    }
    assert archived == snapshots
    assert found["latest/bitcoin_processed.csv"] == files["bitcoin_processed.csv"]
