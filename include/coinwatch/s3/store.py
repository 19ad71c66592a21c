"""S3: keys, and writes that say what they did (contract, section 6)."""

import base64
import hashlib
import logging
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from coinwatch.errors import CoinwatchError

log = logging.getLogger(__name__)

_CONFLICT_TRIES = 5
"""A racing write of the same key is refused with 409 until it is over."""

_CONTENT_TYPES = {".csv": "text/csv; charset=utf-8", ".json": "application/json"}


class S3Error(CoinwatchError):
    """S3 did not take an object."""


class S3Refused(S3Error):
    """S3 will not take it as things are."""

    retryable = False


class S3Conflict(S3Error):
    """Another object stands where a write-once object should be."""

    retryable = False


def partition_key(layer: str, hour: datetime) -> str:
    """Key of a layer's rows of one data hour.

    Args:
        layer: ``raw`` or ``processed``.
        hour: Full hour, UTC.
    """
    return f"{layer}/{_partition(f'{hour:%Y%m%dT%H}')}/prices.csv"


def archive_key(name: str, ending: str) -> str:
    """Key of a snapshot's file: its hour is that of the as-of time in its name."""
    return f"archive/{_partition(name)}/{name}{ending}"


def latest_key(coin: str) -> str:
    """Key of a coin's whole processed CSV."""
    return f"latest/{coin}_processed.csv"


def _partition(time: str) -> str:
    return f"date={time[:4]}-{time[4:6]}-{time[6:8]}/hour={time[9:11]}"


class S3Store:
    """A bucket, or the part of one below a prefix; may be used from several threads.

    Attributes:
        bucket: Its name.
    """

    def __init__(self, client: Any, bucket: str, prefix: str = "") -> None:
        self._client = client
        self.bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    def full_key(self, key: str) -> str:
        """A key with the prefix before it."""
        return self._prefix + key

    def put(self, key: str, body: bytes) -> None:
        """Write an object, over the one that is there.

        Raises:
            S3Error: S3 did not take it.
        """
        try:
            self._put(key, body)
        except (BotoCoreError, ClientError) as error:
            raise self._failure(key, error) from None

    def put_once(self, key: str, body: bytes) -> None:
        """Write an object that is never replaced; the same content again is fine.

        Raises:
            S3Conflict: There is another one.
            S3Error: S3 did not take it.
        """
        try:
            self._put_once(key, body)
        except (BotoCoreError, ClientError) as error:
            raise self._failure(key, error) from None

    def delete(self, key: str) -> str:
        """Take an object away.

        Returns:
            Why it is still there, if it is.
        """
        try:
            self._client.delete_object(Bucket=self.bucket, Key=self.full_key(key))
        except (BotoCoreError, ClientError) as error:
            return f"s3://{self.bucket}/{self.full_key(key)} could not be deleted again ({error})"
        return ""

    def _put_once(self, key: str, body: bytes) -> None:
        for _ in range(_CONFLICT_TRIES):
            try:
                self._put(key, body, IfNoneMatch="*")
            except ClientError as error:
                if _status(error) == 409:
                    continue
                if _status(error) != 412:
                    raise
                self._expect_same(key, body)
            return
        raise S3Error(
            f"s3://{self.bucket}/{self.full_key(key)}: somebody else keeps writing it; it is tried again later"
        )

    def _put(self, key: str, body: bytes, **conditions: str) -> None:
        digest = hashlib.sha256(body)
        self._client.put_object(
            Bucket=self.bucket,
            Key=self.full_key(key),
            Body=body,
            ContentType=_CONTENT_TYPES[key[key.rindex(".") :]],
            ChecksumSHA256=base64.b64encode(digest.digest()).decode(),
            Metadata={"sha256": digest.hexdigest()},
            **conditions,
        )

    def _expect_same(self, key: str, body: bytes) -> None:
        # S3 refuses our own write too, if its first answer was lost on the way.
        head = self._client.head_object(Bucket=self.bucket, Key=self.full_key(key))
        ours, theirs = hashlib.sha256(body).hexdigest(), head["Metadata"].get("sha256", "unknown")
        if ours != theirs:
            raise S3Conflict(
                f"s3://{self.bucket}/{self.full_key(key)} is there with another content (SHA-256 {theirs}; ours is "
                f"{ours}). Snapshots are never replaced: find out who wrote it"
            )

    def _failure(self, key: str, error: Exception) -> S3Error:
        where = f"s3://{self.bucket}/{self.full_key(key)}"
        if isinstance(error, ClientError):
            code = error.response["Error"]["Code"]
            said = f"{where} was not written: {code}: {error.response['Error'].get('Message', '')}"
            if code == "NoSuchBucket":
                return S3Refused(f"{said}. Create the bucket, or correct COINWATCH_S3_BUCKET")
            if _status(error) in (401, 403):
                return S3Refused(f"{said}. The credentials (connection aws_default) may not write there")
            return S3Error(f"{said}. It is tried again later")
        return S3Error(
            f"{where} was not written: {error}. It is tried again later; if this lasts, check the connection "
            "aws_default (credentials, region, endpoint_url)"
        )


def _status(error: ClientError) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
