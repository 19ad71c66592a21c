"""The sandbox's S3: moto's server on loopback, with objects that survive a restart.

moto keeps everything in memory, of this process and for all its servers. The pipeline's ledger believes that S3 keeps
what it took; so what was taken is also written to a file, and put back at the next start.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import Client

from coinwatch.sandbox.http import HOST

REGION = "us-east-1"

ACCESS_KEY = SECRET_KEY = "sandbox"  # noqa: S105 - obviously made up, and accepted by this server alone

_KEPT_HEADERS = ("HTTP_X_AMZ_META_SHA256", "HTTP_X_AMZ_CHECKSUM_SHA256", "CONTENT_TYPE")


class S3Sandbox:
    """An S3 on loopback, with one bucket.

    Attributes:
        port: Where it listens.
        bucket: Its bucket.
    """

    def __init__(self, bucket: str, *, port: int = 0, kept_in: Path | None = None) -> None:
        self.bucket = bucket
        self._application = create_backend_app("s3")
        self._kept = _Kept(kept_in) if kept_in is not None else None
        get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"].reset()
        client = Client(self._application)
        created = client.put(f"/{bucket}", headers={"Host": HOST})
        if created.status_code != 200:
            raise ValueError(f"the sandbox's bucket {bucket!r} cannot be created: {created.text}")
        for path, body, headers in self._kept.objects() if self._kept else ():
            client.put(path, data=body, headers={"Host": HOST}, environ_overrides=headers)
        self._server = make_server(HOST, port, self._call, threaded=True, request_handler=_QuietHandler)
        self.port = int(self._server.server_port)
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

    def _call(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request; an object that was taken is kept before the answer goes out."""
        if self._kept is None or environ["REQUEST_METHOD"] != "PUT":
            answer: Iterable[bytes] = self._application(environ, start_response)
            return answer
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        headers = {name: environ[name] for name in _KEPT_HEADERS if name in environ}
        asked = {name: value for name, value in environ.items() if name.startswith(("HTTP_", "CONTENT_"))}
        response = Client(self._application).put(
            environ["PATH_INFO"], data=body, query_string=environ["QUERY_STRING"], environ_overrides=asked
        )
        if response.status_code == 200 and not environ["QUERY_STRING"]:
            self._kept.add(environ["PATH_INFO"], body, headers)
        start_response(response.status, list(response.headers))
        return [response.data]


class _QuietHandler(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        """Say nothing: thousands of uploads are no news."""


class _Kept:
    """Objects in an SQLite file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        # The sandbox's objects can be made again: losing the last ones to a power cut is no harm.
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS objects"
            " (path TEXT PRIMARY KEY, body BLOB, sha256 TEXT, checksum TEXT, type TEXT)"
        )

    def add(self, path: str, body: bytes, headers: dict[str, str]) -> None:
        row = (path, body, *(headers.get(name) for name in _KEPT_HEADERS))
        with self._lock:
            self._connection.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", row)

    def objects(self) -> Iterable[tuple[str, bytes, dict[str, str]]]:
        for path, body, *values in self._connection.execute("SELECT * FROM objects"):
            yield path, body, {n: v for n, v in zip(_KEPT_HEADERS, values, strict=True) if v is not None}
