"""S3 keys, and writes whose errors say what to do (contract, section 6)."""

import base64
import contextlib
import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from coinwatch.errors import CoinwatchError

_CONFLICT_TRIES = 5
"""S3 refuses racing writes of one key with 409 until one of them is done."""

_CONTENT_TYPES = {"csv": "text/csv; charset=utf-8", "json": "application/json"}


class S3Error(CoinwatchError):
    """S3 did not accept an object."""


class S3Refused(S3Error):
    """S3 accepts nothing until an operator changes something."""

    retryable = False


class S3Conflict(S3Error):
    """A write-once key has another content."""

    retryable = False


def partition_key(layer: str, hour: datetime) -> str:
    """Return the key of one data hour of a layer, ``raw`` or ``processed``."""
    return f"{layer}/date={hour:%Y-%m-%d}/hour={hour:%H}/prices.csv"


def archive_key(name: str, ending: str) -> str:
    """Return the key of a snapshot's file; its hour is that of the as-of time in its name."""
    return f"archive/date={name[:4]}-{name[4:6]}-{name[6:8]}/hour={name[9:11]}/{name}{ending}"


def latest_key(coin: str) -> str:
    """Return the key of a coin's whole processed CSV."""
    return f"latest/{coin}_processed.csv"


class S3Store:
    """A bucket, or the part of one below a prefix; may be used from several threads."""

    def __init__(self, client: Any, bucket: str, prefix: str = "") -> None:
        self._client = client
        self.bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    def full_key(self, key: str) -> str:
        """Return a key with the prefix before it."""
        return self._prefix + key

    def put(self, key: str, body: bytes) -> None:
        """Write an object, and replace one that exists.

        Raises:
            S3Error: S3 did not accept it.
        """
        with self._explained(key):
            self._put(key, body)

    def put_once(self, key: str, body: bytes) -> None:
        """Write an object that is never replaced; the same content again is fine.

        Raises:
            S3Conflict: The key has another content.
            S3Error: S3 did not accept it.
        """
        with self._explained(key):
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
        raise S3Error(f"{self._where(key)} was not written: another writer holds the key. The next run retries")

    def delete(self, key: str) -> str:
        """Delete an object.

        Returns:
            Why it still exists, if it does.
        """
        try:
            self._client.delete_object(Bucket=self.bucket, Key=self.full_key(key))
        except (BotoCoreError, ClientError) as error:
            return f"{self._where(key)} was not deleted ({error})"
        return ""

    def _where(self, key: str) -> str:
        return f"s3://{self.bucket}/{self.full_key(key)}"

    @contextlib.contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Raise errors of S3 as ours."""
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise self._failure(key, error) from None

    def _put(self, key: str, body: bytes, **conditions: str) -> None:
        digest = hashlib.sha256(body)
        self._client.put_object(
            Bucket=self.bucket,
            Key=self.full_key(key),
            Body=body,
            ContentType=_CONTENT_TYPES[key.rpartition(".")[2]],
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
                f"{self._where(key)} exists with another content (SHA-256 {theirs}; ours is {ours}). Snapshots are "
                "never replaced: find out who wrote it"
            )

    def _failure(self, key: str, error: BotoCoreError | ClientError) -> S3Error:
        if isinstance(error, BotoCoreError):
            return S3Error(
                f"{self._where(key)} was not written: {error}. The next run retries; if this lasts, check the "
                "connection aws_default (credentials, region, endpoint_url)"
            )
        code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        what = f"{self._where(key)} was not written: {code}: {message}"
        if code == "NoSuchBucket":
            return S3Refused(f"{what}. Create the bucket, or correct COINWATCH_S3_BUCKET")
        if _status(error) in (401, 403):
            return S3Refused(f"{what}. The credentials (connection aws_default) must be allowed to write there")
        return S3Error(f"{what}. The next run retries")


def _status(error: ClientError) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])
