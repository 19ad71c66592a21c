import hashlib
import threading
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from botocore.exceptions import EndpointConnectionError
from sqlalchemy import delete, insert, select

from coinwatch.archive.snapshots import Answer, Archive
from coinwatch.record import RAW_COLUMNS, RawPrice, format_raw_prices
from coinwatch.rules import load_rules
from coinwatch.s3 import uploads
from coinwatch.s3.store import S3Conflict, S3Error, S3Store
from coinwatch.s3.uploads import FileMissing, upload_latest, upload_missing, upload_to_s3
from coinwatch.settings import PROJECT_DIR
from coinwatch.times import HOUR, format_time
from coinwatch.warehouse import schema
from coinwatch.warehouse.load import store_raw_prices
from coinwatch.warehouse.work import mark_uploads

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
NOW = TEN + timedelta(hours=5)
RULES = load_rules(PROJECT_DIR / "include" / "coinwatch.yaml")


class Watched:
    """A client that calls something before each object that it puts; from several threads, one at a time."""

    def __init__(self, client, before=lambda *_: None):
        self._client, self._before = client, before
        self._lock = threading.Lock()
        self.puts = 0

    def put_object(self, **arguments):
        with self._lock:
            self._before(self.puts, arguments["Key"])
            self.puts += 1
        return self._client.put_object(**arguments)

    def head_object(self, **arguments):
        return self._client.head_object(**arguments)


def unreachable(*_):
    raise EndpointConnectionError(endpoint_url="http://s3")


@pytest.fixture
def make_app(warehouse, s3_client, tmp_path):
    """An app for the uploads, as each task has one; with a client in place of the usual one."""

    def make(client=s3_client, bucket="coinwatch"):
        return SimpleNamespace(
            warehouse=warehouse,
            s3=S3Store(client, bucket, "team"),
            archive=Archive(tmp_path / "archive"),
            settings=SimpleNamespace(archive_path=tmp_path / "archive"),
            clock=lambda: NOW,
        )

    return make


def price(moment=TEN, text="84012.50", source="live", coin="bitcoin"):
    time = format_time(moment)
    return RawPrice(time, coin, "usd", text, "1e3", "", "-1.4", time, time, source, "s")


def add(warehouse, *rows):
    """Store raw prices and a statistic for each."""
    with warehouse.begin() as connection:
        store_raw_prices(connection, rows, RULES, rows[0].moment)
        for row in rows:
            c = schema.price_statistics.c
            key = (c.coin == row.coin, c.currency == row.currency, c.ts == row.moment)
            connection.execute(delete(schema.price_statistics).where(*key))
            connection.execute(insert(schema.price_statistics).values(statistic(row)))
        mark_uploads(connection, "processed", (row.moment for row in rows))


def statistic(row):
    return {
        "coin": row.coin,
        "currency": row.currency,
        "ts": row.moment,
        "price": 1,
        "points_24h": 2,
        "rolling_mean_24h": 0.1,
        "rolling_std_24h": None,
        "zscore_24h": 1e-07,
        "change_1h_pct": -1.5,
        "change_24h_pct": None,
        "sigma_1h_pct": 0.30000000000000004,
        "sigma_samples": 7,
        "sigma_variance": 0.5,
    }


def objects(client, prefix="team/"):
    """What the bucket has: key → text."""
    found = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="coinwatch"):
        for item in page.get("Contents", ()):
            body = client.get_object(Bucket="coinwatch", Key=item["Key"])["Body"].read()
            found[item["Key"].removeprefix(prefix)] = body.decode()
    return found


def check_ledger(warehouse, client, pending=()):
    """What is noted is what the bucket has, and what is pending is the rest."""
    with warehouse.begin() as connection:
        rows = connection.execute(select(schema.s3_objects.c.key, schema.s3_objects.c.sha256))
        noted = {row.key.removeprefix("team/"): row.sha256 for row in rows}
        left = connection.execute(select(schema.pending_uploads).order_by("layer", "hour")).all()
    assert noted == {key: hashlib.sha256(text.encode()).hexdigest() for key, text in objects(client).items()}
    assert left == list(pending)


def test_a_partition_has_exactly_the_rows_of_its_hour_as_the_files_have_them(warehouse, make_app, s3_client):
    add(
        warehouse,
        price(coin="ethereum", text="6.44e-06"),
        price(TEN + timedelta(minutes=59, seconds=59)),
        price(TEN, source="history", text="84000"),
        price(TEN),
        price(TEN + HOUR),
    )
    assert upload_to_s3(make_app()) == {"raw": 2, "processed": 2, "archive": 0}
    found = objects(s3_client)
    assert found["raw/date=2026-11-22/hour=10/prices.csv"].splitlines() == [
        ",".join(RAW_COLUMNS),
        "2026-11-22T10:00:00Z,bitcoin,usd,84000,1e3,,-1.4,2026-11-22T10:00:00Z,2026-11-22T10:00:00Z,history,s",
        "2026-11-22T10:00:00Z,bitcoin,usd,84012.50,1e3,,-1.4,2026-11-22T10:00:00Z,2026-11-22T10:00:00Z,live,s",
        "2026-11-22T10:59:59Z,bitcoin,usd,84012.50,1e3,,-1.4,2026-11-22T10:59:59Z,2026-11-22T10:59:59Z,live,s",
        "2026-11-22T10:00:00Z,ethereum,usd,6.44e-06,1e3,,-1.4,2026-11-22T10:00:00Z,2026-11-22T10:00:00Z,live,s",
    ]
    assert found["processed/date=2026-11-22/hour=10/prices.csv"] == (
        "timestamp,coin,currency,price,points_24h,rolling_mean_24h,rolling_std_24h,zscore_24h,change_1h_pct,"
        "change_24h_pct,sigma_1h_pct,sigma_samples\n"
        "2026-11-22T10:00:00Z,bitcoin,usd,84012.50,2,0.1,,1e-07,-1.5,,0.30000000000000004,7\n"
        "2026-11-22T10:00:00Z,ethereum,usd,6.44e-06,2,0.1,,1e-07,-1.5,,0.30000000000000004,7\n"
        "2026-11-22T10:59:59Z,bitcoin,usd,84012.50,2,0.1,,1e-07,-1.5,,0.30000000000000004,7\n"
    )
    check_ledger(warehouse, s3_client)


def test_a_partition_is_written_again_only_when_its_content_changed(warehouse, make_app, s3_client):
    add(warehouse, price(), price(TEN + HOUR))
    upload_to_s3(make_app())
    client = Watched(s3_client)
    # As somebody does who starts the Dag by hand.
    assert upload_missing(make_app(client)) == {"archive": 0}
    add(warehouse, price(TEN + HOUR, text="1"))
    assert upload_to_s3(make_app(client)) == {"raw": 1, "processed": 1, "archive": 0}
    assert client.puts == 2
    check_ledger(warehouse, s3_client)
    # What one bucket has does not matter to another.
    s3_client.create_bucket(Bucket="second")
    assert upload_missing(make_app(bucket="second")) == {"raw": 2, "processed": 2, "archive": 0}


def test_an_hour_that_lost_its_rows_is_emptied_and_one_that_never_had_any_is_not_made(warehouse, make_app, s3_client):
    add(warehouse, price())
    upload_to_s3(make_app())
    with warehouse.begin() as connection:
        connection.execute(delete(schema.raw_prices))
        mark_uploads(connection, "raw", [TEN, TEN + HOUR])
    assert upload_to_s3(make_app())["raw"] == 1
    assert {key: text for key, text in objects(s3_client).items() if key.startswith("raw/")} == {
        "raw/date=2026-11-22/hour=10/prices.csv": ",".join(RAW_COLUMNS) + "\n"
    }
    check_ledger(warehouse, s3_client)


@pytest.mark.postgres
def test_a_row_that_comes_while_its_hour_is_uploaded_is_uploaded_by_the_next_run(warehouse, make_app, s3_client):
    """Also on PostgreSQL, which has several writers at a time."""
    add(warehouse, price())

    def another_row(number, _):
        if number == 0:
            add(warehouse, price(TEN + timedelta(minutes=30)))

    assert upload_to_s3(make_app(Watched(s3_client, another_row))) == {"raw": 1, "processed": 1, "archive": 0}
    check_ledger(warehouse, s3_client, [("processed", TEN), ("raw", TEN)])
    upload_to_s3(make_app())
    assert [text.count("\n") for text in objects(s3_client).values()] == [3, 3]
    check_ledger(warehouse, s3_client)


def test_an_outage_stops_the_uploads_keeps_what_went_well_and_the_next_run_does_the_rest(
    warehouse, make_app, s3_client, monkeypatch
):
    monkeypatch.setattr(uploads, "THREADS", 1)
    monkeypatch.setattr(uploads, "GROUP", 4)
    hours = [TEN + number * HOUR for number in range(5)]
    add(warehouse, *map(price, hours))
    asked = []

    def fail_from_the_third_on(number, key):
        asked.append(key)
        if number >= 2:
            unreachable()

    with pytest.raises(S3Error):
        upload_to_s3(make_app(Watched(s3_client, fail_from_the_third_on)))
    assert len(asked) == 4, "the group of the outage, and no more"
    left = [("processed", hour) for hour in hours[2:]] + [("raw", hour) for hour in hours]
    check_ledger(warehouse, s3_client, left)
    client = Watched(s3_client)
    upload_to_s3(make_app(client))
    assert client.puts == 8
    assert len(objects(s3_client)) == 10
    check_ledger(warehouse, s3_client)


NAMES = ["20261122T100000Z", "20261122T110000Z-history-bitcoin"]
ANSWER = Answer("GET /", 200, {}, b'{"price": 1}', "2026-11-22T10:00:01Z")
BODY = "archive/date=2026-11-22/hour=10/20261122T100000Z.json"


@pytest.fixture
def archive(make_app):
    """Two snapshots."""
    archive = make_app().archive
    for name in NAMES:
        archive.save(name, ANSWER, [price()])
    return archive


@pytest.mark.usefixtures("archive")
def test_snapshots_are_written_once_with_both_files(make_app, s3_client):
    client = Watched(s3_client)
    assert upload_to_s3(make_app(client)) == {"archive": 4}
    rows = format_raw_prices([price()])
    assert objects(s3_client) == {
        BODY: '{"price": 1}',
        BODY.replace(".json", ".csv"): rows,
        "archive/date=2026-11-22/hour=11/20261122T110000Z-history-bitcoin.json": '{"price": 1}',
        "archive/date=2026-11-22/hour=11/20261122T110000Z-history-bitcoin.csv": rows,
    }
    assert upload_to_s3(make_app(client)) == {"archive": 0}
    assert client.puts == 4


@pytest.mark.parametrize("error", [S3Conflict, FileMissing])
def test_a_snapshot_that_cannot_be_uploaded_is_named_and_all_others_are_uploaded(
    make_app, s3_client, archive, monkeypatch, error
):
    monkeypatch.setattr(uploads, "GROUP", 1)
    if error is S3Conflict:
        make_app().s3.put_once(BODY, b"something else")
    else:
        (archive.manifest.parent / "20261122T100000Z.json").unlink()
    with pytest.raises(error, match=r"20261122T100000Z\.json") as caught:
        upload_to_s3(make_app())
    assert not caught.value.retryable
    found = objects(s3_client)
    assert found.pop(BODY, "") in ("", "something else")
    assert len(found) == 3
    # Once there is an outage too, it is the reason to try again.
    if error is FileMissing:
        with pytest.raises(S3Error) as caught:
            upload_to_s3(make_app(Watched(s3_client, unreachable)))
        assert caught.value.retryable


def test_a_lost_bucket_is_filled_again_and_a_second_run_changes_nothing(make_world):
    world = make_world(history_days=2)
    world.run()
    before = world.objects()
    with world.warehouse().begin() as connection:
        connection.execute(delete(schema.s3_objects))
    client = world.s3_client()
    for key in before:
        client.delete_object(Bucket=world.s3.bucket, Key=key)
    partitions = sum(not key.startswith("archive/") for key in before)
    uploaded = upload_missing(world.app())
    assert uploaded["raw"] + uploaded["processed"] == partitions
    assert world.objects() == before
    again = upload_missing(world.app())
    assert again.get("raw", 0) == again.get("processed", 0) == 0


def test_the_whole_processed_csv_replaces_the_one_before(world):
    path = world.settings.processed_path("bitcoin")
    for content in (b"old\n", b"new\n"):
        path.write_bytes(content)
        assert upload_latest(world.app()) == ["bitcoin"]
    assert world.objects("latest/") == {"latest/bitcoin_processed.csv": b"new\n"}
    path.unlink()
    with pytest.raises(FileMissing, match=str(path)):
        upload_latest(world.app())


def test_without_a_bucket_nothing_is_uploaded(world, caplog):
    assert upload_missing(world.app(s3=None)) == {}
    assert upload_latest(world.app(s3=None)) == []
    assert caplog.messages.count(uploads.NO_BUCKET) == 2
