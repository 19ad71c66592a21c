"""The sandbox's S3: moto's server on loopback, with objects that survive a restart.

moto keeps everything in memory, once for all its servers in a process. The pipeline notes what S3 has; so each object
is also written to a file, and given to moto again at the next start.
"""

import io
import json
import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import create_backend_app
from moto.s3.exceptions import S3ClientError
from werkzeug.test import run_wsgi_app

from coinwatch.sandbox.http import HOST, Server

REGION = "us-east-1"

ACCESS_KEY = SECRET_KEY = "sandbox"  # noqa: S105 - obviously made up, and accepted by this server alone

_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class S3Sandbox(Server):
    """An S3 on loopback. Only one in a process: another one removes this one's objects.

    Attributes:
        bucket: The bucket that it has from the start.
        is_down: Whether it answers 503 to everything.
    """

    def __init__(self, bucket: str, *, port: int = 0, kept_in: Path | None = None, host: str = HOST) -> None:
        """Restore the objects from the file, if there is one, and take the port.

        Raises:
            CannotListen: The port is taken or not allowed.
            ValueError: S3 does not allow the bucket's name, or the file is damaged.
        """
        self.bucket = bucket
        self.is_down = False
        self._moto = create_backend_app("s3")
        # moto checks and writes in two steps; a conditional write has to be one.
        self._writing = threading.Lock()
        _backend().reset()
        try:
            _backend().create_bucket(bucket, REGION)
        except S3ClientError as error:
            raise ValueError(f"cannot create the sandbox's bucket {bucket!r}: {error.message}") from None
        self._kept = _open(kept_in)
        for row in self._kept.execute("SELECT bucket, key, body, details FROM kept"):
            _put_back(*row)
        super().__init__(self._call, port=port, host=host)

    @property
    def url(self) -> str:
        """The endpoint."""
        return self.origin

    def __exit__(self, *exception: object) -> None:
        """Answer no more."""
        super().__exit__(*exception)
        with self._writing:
            self._kept.close()

    def _call(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request; what was written is kept before the answer goes out."""
        if self.is_down:
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [_SLOW_DOWN]
        if environ["REQUEST_METHOD"] not in {"PUT", "POST", "DELETE"}:
            answer: Iterable[bytes] = self._moto(environ, start_response)
            return answer
        # Read before the lock is taken: nobody has to wait for a slow sender.
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]) if environ.get("CONTENT_LENGTH") else -1)
        environ |= {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        path = environ["PATH_INFO"].encode("latin-1").decode()
        bucket, _, key = path[1:].partition("/")
        with self._writing:
            content, status, headers = run_wsgi_app(self._moto, environ, buffered=True)
            if status.startswith("2"):
                self._keep(bucket, key)
        start_response(status, list(headers))
        return content

    def _keep(self, bucket: str, key: str) -> None:
        """Keep what moto has of a key now; a request to the whole bucket may have deleted any of its keys."""
        if key:
            keys = [key]
        else:
            keys = [row[0] for row in self._kept.execute("SELECT key FROM kept WHERE bucket = ?", (bucket,))]
        for name in keys:
            found = _backend().get_object(bucket, name) if bucket in _backend().buckets else None
            if found is None:
                self._kept.execute("DELETE FROM kept WHERE bucket = ? AND key = ?", (bucket, name))
            elif key:
                row = (bucket, name, found.value, json.dumps({"metadata": dict(found.metadata)}))
                self._kept.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?)", row)


def _backend() -> Any:
    return get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]


def _put_back(bucket: str, key: str, body: bytes, details: str) -> None:
    """Give moto an object with its metadata; not over HTTP, which takes several times as long."""
    if bucket not in _backend().buckets:
        _backend().create_bucket(bucket, REGION)
    restored = _backend().put_object(bucket, key, body, disable_notification=True)
    restored.set_metadata(json.loads(details)["metadata"])


def _open(path: Path | None) -> sqlite3.Connection:
    """Open the file that keeps the objects; one caller at a time."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
    try:
        # A killed process loses nothing. A power cut may, which does no harm: all of this can be made again.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS kept"
            " (bucket TEXT, key TEXT, body BLOB, details TEXT, PRIMARY KEY (bucket, key))"
        )
    except sqlite3.DatabaseError as error:
        connection.close()
        raise ValueError(
            f"{path} is damaged, S3 objects are unreadable ({error}): remove {path and path.parent} to start anew"
        ) from None
    return connection
