from contextlib import contextmanager

import boto3
import pytest
from botocore.exceptions import ClientError

from coinwatch.sandbox.s3 import ACCESS_KEY, REGION, SECRET_KEY, S3Sandbox
from coinwatch.storage.s3 import S3Conflict, S3Store


@contextmanager
def client(kept_in=None):
    with S3Sandbox("bucket", kept_in=kept_in) as sandbox:
        made = boto3.client(
            "s3",
            endpoint_url=sandbox.url,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
        yield made
        made.close()


def keys(s3):
    return [entry["Key"] for entry in s3.list_objects_v2(Bucket="bucket").get("Contents", [])]


def test_objects_survive_a_restart_with_all_that_was_said_of_them(tmp_path):
    with client(tmp_path / "s3.db") as s3:
        S3Store(s3, "bucket").put("raw/x.csv", b"old")
        S3Store(s3, "bucket").put("raw/x.csv", b"new")
        S3Store(s3, "bucket").put_once("archive/y.json", b"{}")
        before = s3.head_object(Bucket="bucket", Key="raw/x.csv")
    with client(tmp_path / "s3.db") as s3:
        after = s3.get_object(Bucket="bucket", Key="raw/x.csv")
        assert after["Body"].read() == b"new"
        assert [after[name] for name in ("ETag", "Metadata", "ContentType")] == [
            before[name] for name in ("ETag", "Metadata", "ContentType")
        ]
        S3Store(s3, "bucket").put_once("archive/y.json", b"{}")
        with pytest.raises(S3Conflict):
            S3Store(s3, "bucket").put_once("archive/y.json", b"[]")
        assert keys(s3) == ["archive/y.json", "raw/x.csv"]


def test_without_a_file_each_start_is_empty():
    for _ in range(2):
        with client() as s3:
            assert keys(s3) == []
            S3Store(s3, "bucket").put("raw/x.csv", b"x")


def test_a_write_once_object_is_refused_the_second_time():
    with client() as s3:
        s3.put_object(Bucket="bucket", Key="x", Body=b"1", IfNoneMatch="*")
        with pytest.raises(ClientError, match="PreconditionFailed"):
            s3.put_object(Bucket="bucket", Key="x", Body=b"1", IfNoneMatch="*")


def test_a_bucket_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="bucket 'x' cannot be created"):
        S3Sandbox("x")
