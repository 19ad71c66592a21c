import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from botocore.exceptions import ClientError

from coinwatch.s3.store import S3Conflict, S3Store
from coinwatch.sandbox.s3 import S3Sandbox


@pytest.fixture
def start(open_s3_client, tmp_path):
    """Start an S3 whose objects are kept, and open a client of it."""

    @contextmanager
    def start():
        with S3Sandbox("bucket", kept_in=tmp_path / "s3.db") as sandbox:
            yield open_s3_client(sandbox.url)

    return start


def keys(s3):
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket="bucket").get("Contents", [])]


def test_objects_survive_a_restart_with_their_metadata_and_what_was_deleted_stays_deleted(start):
    key = "raw/date=2026-11-22/a b+c%20d/ü€?y&z#1.csv"
    with start() as s3:
        S3Store(s3, "bucket").put(key, b"old")
        S3Store(s3, "bucket").put(key, b"new")
        S3Store(s3, "bucket").put_once("archive/y.json", b"{}")
        before = s3.head_object(Bucket="bucket", Key=key)
        s3.put_object(Bucket="bucket", Key="0")
        s3.delete_object(Bucket="bucket", Key="0")
    with start() as s3:
        assert keys(s3) == ["archive/y.json", key]
        after = s3.get_object(Bucket="bucket", Key=key)
        assert after["Body"].read() == b"new"
        names = ("ETag", "Metadata", "ContentType", "ContentLength")
        assert [after[name] for name in names] == [before[name] for name in names]
        S3Store(s3, "bucket").put_once("archive/y.json", b"{}")
        with pytest.raises(S3Conflict):
            S3Store(s3, "bucket").put_once("archive/y.json", b"[]")


def test_what_was_accepted_survives_a_kill(start, kill_at_line):
    def put():
        with start() as s3:
            s3.put_object(Bucket="bucket", Key="x", Body=b"1")
            os.kill(os.getpid(), signal.SIGKILL)

    assert kill_at_line(put, 0)
    with start() as s3:
        assert keys(s3) == ["x"]


def test_of_many_writers_of_one_key_exactly_one_wins_and_is_kept(start):
    with start() as s3, ThreadPoolExecutor(8) as threads:

        def put(number):
            try:
                s3.put_object(Bucket="bucket", Key="x", Body=b"%d" % number, IfNoneMatch="*")
            except ClientError as error:
                return error.response["ResponseMetadata"]["HTTPStatusCode"]
            return 200

        assert sorted(threads.map(put, range(24))) == [200] + [412] * 23
        winner = s3.get_object(Bucket="bucket", Key="x")["Body"].read()
    with start() as s3:
        assert s3.get_object(Bucket="bucket", Key="x")["Body"].read() == winner


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "s3.db"
    path.write_bytes(b"x" * 5000)
    with pytest.raises(ValueError, match=str(path)):
        S3Sandbox("bucket", kept_in=path)
