"""Contract, section 6: the objects on S3."""

import csv
import re

import pytest

PARTITION = r"date=\d{4}-\d\d-\d\d/hour=\d\d"


def test_every_key_is_one_of_the_contract(two_hours):
    allowed = re.compile(
        rf"(raw|processed)/{PARTITION}/prices\.csv|archive/{PARTITION}/\d{{8}}T\d{{6}}Z[\w.-]*\.(json|csv)"
        r"|latest/bitcoin_processed\.csv"
    )
    assert [key for key in two_hours.objects if not allowed.fullmatch(key)] == []
    assert {key.partition("/")[0] for key in two_hours.objects} == {"raw", "processed", "archive", "latest"}


@pytest.mark.parametrize("layer", ["raw", "processed"])
def test_a_partition_has_exactly_the_rows_of_its_hour_and_all_of_them_together_are_the_csv(two_hours, layer):
    rows = []
    for key, body in two_hours.objects.items():
        if key.startswith(f"{layer}/"):
            date, hour = re.search(r"date=([\d-]+)/hour=(\d\d)", key).groups()
            of_hour = list(csv.reader(body.decode().splitlines()))[1:]
            assert of_hour
            assert all(row[0].startswith(f"{date}T{hour}:") for row in of_hour)
            rows += of_hour
    stored = list(csv.reader(two_hours.files[f"bitcoin_{layer}.csv"].decode().splitlines()))[1:]
    assert sorted(rows) == sorted(stored)


def test_the_archive_is_the_one_on_disk_and_latest_the_whole_processed_csv(two_hours):
    files, objects = two_hours.files, two_hours.objects
    snapshots = {name.removeprefix("archive/"): body for name, body in files.items() if re.match(r"archive/\d", name)}
    assert snapshots == {key.rpartition("/")[2]: body for key, body in objects.items() if key.startswith("archive/")}
    assert objects["latest/bitcoin_processed.csv"] == files["bitcoin_processed.csv"]
