"""The sandbox's S3: moto's server on loopback, with objects that survive a restart.

moto keeps everything in memory, once for all its servers in a process. The pipeline notes what S3 has; so each object
of the bucket is also written to a file, and given to moto again at the next start.
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
from werkzeug.test import run_wsgi_app

from coinwatch.sandbox.http import HOST, SandboxServer

REGION = "us-east-1"

ACCESS_KEY = SECRET_KEY = "sandbox"  # noqa: S105 - obviously made up, and accepted by this server alone

_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class S3Sandbox(SandboxServer):
    """An S3 on loopback. Only one in a process: another one removes this one's objects.

    Attributes:
        bucket: The bucket that it has from the start.
        is_down: Whether it answers 503 to everything.
    """

    name = "S3"

    def __init__(self, bucket: str, *, port: int = 0, kept_in: Path | None = None, host: str = HOST) -> None:
        """Restore the objects from the file, if there is one, and take the port."""
        self.bucket = bucket
        self.is_down = False
        self._moto = create_backend_app("s3")
        self._backend = get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]
        # moto checks and writes in two steps; a conditional write has to be one.
        self._writing = threading.Lock()
        self._backend.reset()
        self._backend.create_bucket(bucket, REGION)
        self._kept = _open(kept_in)
        # Not over HTTP, which takes several times as long.
        for key, body, metadata in self._kept.execute("SELECT * FROM objects"):
            self._backend.put_object(bucket, key, body, disable_notification=True).set_metadata(json.loads(metadata))
        super().__init__(port=port, host=host)
        self.app.wsgi_app = self._call  # type: ignore[method-assign]  # as the documentation of Flask has it

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
            if status.startswith("2") and bucket == self.bucket and key:
                self._keep(key)
        start_response(status, list(headers))
        return content

    def _keep(self, key: str) -> None:
        """Keep what moto has of a key now."""
        found = self._backend.get_object(self.bucket, key)
        if found is None:
            self._kept.execute("DELETE FROM objects WHERE key = ?", (key,))
        else:
            row = (key, found.value, json.dumps(dict(found.metadata)))
            self._kept.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", row)


def _open(path: Path | None) -> sqlite3.Connection:
    """Open the file that keeps the objects; one caller at a time."""
    connection = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
    try:
        # A killed process loses nothing. A power cut may, which does no harm: all of this can be made again.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("CREATE TABLE IF NOT EXISTS objects (key TEXT PRIMARY KEY, body BLOB, metadata TEXT)")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise ValueError(f"{path} is damaged ({error}): remove the folder to start anew") from None
    return connection
