"""The sandbox's S3: moto's server on loopback, with objects that survive a restart.

moto keeps everything in memory, of this process and for all its servers. The pipeline's ledger believes that S3 keeps
what it took; so what was taken is also written to a file, and put back at the next start.
"""

import io
import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import create_backend_app
from moto.s3.exceptions import S3ClientError
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import run_wsgi_app

from coinwatch.sandbox.http import HOST, listening_socket

REGION = "us-east-1"

ACCESS_KEY = SECRET_KEY = "sandbox"  # noqa: S105 - obviously made up, and accepted by this server alone


class S3Sandbox:
    """An S3 on loopback. Only one in a process: another one takes this one's objects away.

    Attributes:
        port: Where it listens.
        bucket: The bucket that it has from the start.
    """

    def __init__(self, bucket: str, *, port: int = 0, kept_in: Path | None = None, host: str = HOST) -> None:
        """Take the port, and put back what was kept.

        Args:
            bucket: Its name.
            port: To listen on; any free one if 0.
            kept_in: File that keeps the objects; without one they are gone at the end.
            host: To listen on.

        Raises:
            CannotListen: The port cannot be had.
            ValueError: The bucket's name is not one for S3, or the file is not one of the sandbox's S3.
        """
        self.bucket = bucket
        self._application = create_backend_app("s3")
        # moto looks and writes in two steps; what is conditional has to be one.
        self._writing = threading.Lock()
        with listening_socket(port, host) as listener:
            self.port = int(listener.getsockname()[1])
            self.reset()
            self._kept = _KeptObjects(kept_in) if kept_in is not None else None
            for kept in self._kept or ():
                _put_back(kept)
            self._server = make_server(
                host, self.port, self._call, threaded=True, request_handler=_QuietHandler, fd=listener.fileno()
            )
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        """Answer from now on."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        if self._kept is not None:
            with self._writing:
                self._kept.close()

    def reset(self) -> None:
        """Have nothing but the empty bucket in memory; what a file keeps stays in it.

        Raises:
            ValueError: The bucket's name is not one for S3.
        """
        _backend().reset()
        try:
            _backend().create_bucket(self.bucket, REGION)
        except S3ClientError as error:
            raise ValueError(f"the sandbox's bucket {self.bucket!r} cannot be created: {error.message}") from None

    def _call(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request; what was written is kept before the answer goes out."""
        if environ["REQUEST_METHOD"] not in {"PUT", "POST", "DELETE"}:
            answer: Iterable[bytes] = self._application(environ, start_response)
            return answer
        # Read before the lock is taken: nobody has to wait for a slow sender.
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]) if environ.get("CONTENT_LENGTH") else -1)
        environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(body), str(len(body))
        with self._writing:
            content, status, headers = run_wsgi_app(self._application, environ, buffered=True)
            if self._kept is not None and status.startswith("2"):
                path = environ["PATH_INFO"].encode("latin-1").decode()
                self._keep(*path.removeprefix("/").partition("/")[::2])
        start_response(status, list(headers))
        return content

    def _keep(self, bucket: str, key: str) -> None:
        """Keep of a key what moto has of it now; of a whole bucket, no more than is still there."""
        assert self._kept is not None  # noqa: S101 - the caller has looked
        for name in [key] if key else self._kept.keys(bucket):
            found = _take_out(bucket, name)
            if found is None:
                self._kept.remove(bucket, name)
            elif key:
                self._kept.add(found)


class _QuietHandler(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        """Say nothing: thousands of uploads are no news."""


@dataclass(frozen=True, slots=True)
class _Details:
    """What S3 knows of an object besides its content; names are moto's."""

    etag: str
    last_modified: str
    metadata: dict[str, str]
    checksum_algorithm: str | None
    checksum_value: str | None
    checksum_type: str | None
    checksum_parts: int | None


@dataclass(frozen=True, slots=True)
class _Object:
    bucket: str
    key: str
    body: bytes
    details: _Details


def _backend() -> Any:
    return get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]


def _take_out(bucket: str, key: str) -> _Object | None:
    """An object that moto has."""
    if bucket not in _backend().buckets:
        return None
    found = _backend().get_object(bucket, key)
    if found is None:
        return None
    details = _Details(
        etag=found.etag.strip('"'),
        last_modified=found.last_modified.isoformat(),
        metadata=dict(found.metadata),
        checksum_algorithm=found.checksum_algorithm,
        checksum_value=found.checksum_value,
        checksum_type=found.checksum_type,
        checksum_parts=found.checksum_parts,
    )
    return _Object(bucket, key, found.value, details)


def _put_back(kept: _Object) -> None:
    """Give moto an object as it was; not over HTTP, which takes several times as long."""
    if kept.bucket not in _backend().buckets:
        _backend().create_bucket(kept.bucket, REGION)
    details = kept.details
    key = _backend().put_object(
        kept.bucket,
        kept.key,
        kept.body,
        etag=details.etag,
        checksum_value=details.checksum_value,
        disable_notification=True,
    )
    key.last_modified = datetime.fromisoformat(details.last_modified)
    key.set_metadata(dict(details.metadata))
    key.checksum_algorithm = details.checksum_algorithm
    key.checksum_type = details.checksum_type
    key.checksum_parts = details.checksum_parts


class _KeptObjects:
    """Objects in an SQLite file; one caller at a time."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            # A killed process loses nothing so. A power cut may, which is no harm: all of this can be made again.
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS kept"
                " (bucket TEXT, key TEXT, body BLOB, details TEXT, PRIMARY KEY (bucket, key))"
            )
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise ValueError(
                f"{path} does not keep S3 objects ({error}): remove the folder {path.parent} to start anew"
            ) from None

    def add(self, kept: _Object) -> None:
        row = (kept.bucket, kept.key, kept.body, json.dumps(asdict(kept.details)))
        self._connection.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?)", row)

    def remove(self, bucket: str, key: str) -> None:
        self._connection.execute("DELETE FROM kept WHERE bucket = ? AND key = ?", (bucket, key))

    def keys(self, bucket: str) -> list[str]:
        return [key for (key,) in self._connection.execute("SELECT key FROM kept WHERE bucket = ?", (bucket,))]

    def __iter__(self) -> Iterator[_Object]:
        for bucket, key, body, details in self._connection.execute("SELECT bucket, key, body, details FROM kept"):
            yield _Object(bucket, key, body, _Details(**json.loads(details)))

    def close(self) -> None:
        self._connection.close()
