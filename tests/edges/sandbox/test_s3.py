import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from coinwatch.s3.store import S3Conflict, S3Store
from coinwatch.sandbox.s3 import ACCESS_KEY, REGION, SECRET_KEY, S3Sandbox


@contextmanager
def client_of(sandbox):
    made = boto3.client(
        "s3",
        endpoint_url=sandbox.url,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(retries={"total_max_attempts": 1}),
    )
    yield made
    made.close()


@contextmanager
def client(kept_in=None):
    with S3Sandbox("bucket", kept_in=kept_in) as sandbox, client_of(sandbox) as made:
        yield made


def keys(s3):
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket="bucket").get("Contents", [])]


def test_objects_survive_a_restart_with_all_that_was_said_of_them(tmp_path):
    with client(tmp_path / "s3.db") as s3:
        S3Store(s3, "bucket").put("raw/x.csv", b"old")
        S3Store(s3, "bucket").put("raw/x.csv", b"new")
        S3Store(s3, "bucket").put_once("archive/y.json", b"{}")
        before = s3.head_object(Bucket="bucket", Key="raw/x.csv", ChecksumMode="ENABLED")
    with client(tmp_path / "s3.db") as s3:
        after = s3.get_object(Bucket="bucket", Key="raw/x.csv", ChecksumMode="ENABLED")
        assert after["Body"].read() == b"new"
        names = ("ETag", "Metadata", "ContentType", "LastModified", "ContentLength")
        assert [after[name] for name in names] == [before[name] for name in names]
        S3Store(s3, "bucket").put_once("archive/y.json", b"{}")
        with pytest.raises(S3Conflict):
            S3Store(s3, "bucket").put_once("archive/y.json", b"[]")
        assert keys(s3) == ["archive/y.json", "raw/x.csv"]


def test_without_a_file_each_start_is_empty():
    for _ in range(2):
        with client() as s3:
            assert keys(s3) == []
            S3Store(s3, "bucket").put("raw/x.csv", b"x")


def test_a_name_that_s3_does_not_allow_is_refused():
    with pytest.raises(ValueError, match="bucket 'x'"):
        S3Sandbox("x")


@pytest.mark.parametrize("algorithm", ["SHA256", "CRC32"])
def test_checksums_survive_a_restart(tmp_path, algorithm):
    with client(tmp_path / "s3.db") as s3:
        put = s3.put_object(Bucket="bucket", Key="x", Body=b"1", ChecksumAlgorithm=algorithm)
    with client(tmp_path / "s3.db") as s3:
        head = s3.head_object(Bucket="bucket", Key="x", ChecksumMode="ENABLED")
    assert head[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]


def test_an_object_in_parts_survives_a_restart(tmp_path):
    body = bytes(range(256)) * 4096 * 9
    with client(tmp_path / "s3.db") as s3:
        s3.upload_fileobj(BytesIO(body), "bucket", "big", Config=TransferConfig(8 * 1024 * 1024, use_threads=False))
        before = s3.head_object(Bucket="bucket", Key="big")
    assert before["ETag"].endswith('-2"')
    with client(tmp_path / "s3.db") as s3:
        after = s3.get_object(Bucket="bucket", Key="big")
        assert (after["ETag"], after["Body"].read()) == (before["ETag"], body)


def test_what_was_deleted_stays_deleted_after_a_restart(tmp_path):
    with client(tmp_path / "s3.db") as s3:
        for key in "abcd":
            s3.put_object(Bucket="bucket", Key=key, Body=b"1")
        s3.delete_object(Bucket="bucket", Key="a")
        s3.delete_objects(Bucket="bucket", Delete={"Objects": [{"Key": "b"}, {"Key": "c"}]})
    with client(tmp_path / "s3.db") as s3:
        assert keys(s3) == ["d"]


@pytest.mark.parametrize("key", ["date=2026-11-22/hour=10/x.csv", "a b+c%20d/ü€.csv", "x?y&z#1", "a//b"])
def test_a_key_is_the_same_after_a_restart_whatever_signs_it_has(tmp_path, key):
    with client(tmp_path / "s3.db") as s3:
        s3.put_object(Bucket="bucket", Key=key, Body=b"1")
    with client(tmp_path / "s3.db") as s3:
        assert keys(s3) == [key]
        assert s3.get_object(Bucket="bucket", Key=key)["Body"].read() == b"1"


def test_what_was_taken_survives_a_kill(tmp_path, kill_at_line):
    def put():
        with client(tmp_path / "s3.db") as s3:
            s3.put_object(Bucket="bucket", Key="x", Body=b"1")
            os.kill(os.getpid(), signal.SIGKILL)

    assert kill_at_line(put, 0)
    with client(tmp_path / "s3.db") as s3:
        assert keys(s3) == ["x"]


def test_of_many_writers_of_one_key_exactly_one_wins_and_is_kept(tmp_path):
    with client(tmp_path / "s3.db") as s3, ThreadPoolExecutor(8) as threads:

        def put(number):
            try:
                s3.put_object(Bucket="bucket", Key="x", Body=b"%d" % number, IfNoneMatch="*")
            except ClientError as error:
                return error.response["ResponseMetadata"]["HTTPStatusCode"]
            return 200

        assert sorted(threads.map(put, range(24))) == [200] + [412] * 23
        winner = s3.get_object(Bucket="bucket", Key="x")["Body"].read()
    with client(tmp_path / "s3.db") as s3:
        assert s3.get_object(Bucket="bucket", Key="x")["Body"].read() == winner


def test_an_outage_refuses_everything_and_loses_nothing():
    with S3Sandbox("bucket") as sandbox, client_of(sandbox) as s3:
        s3.put_object(Bucket="bucket", Key="x", Body=b"1")
        sandbox.is_down = True
        with pytest.raises(ClientError, match="SlowDown"):
            s3.put_object(Bucket="bucket", Key="y", Body=b"1")
        sandbox.is_down = False
        assert keys(s3) == ["x"]


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "s3.db"
    path.write_bytes(b"x" * 5000)
    with pytest.raises(ValueError, match=str(path)):
        S3Sandbox("bucket", kept_in=path)
