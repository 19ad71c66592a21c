"""Serve HTTP in a thread, by Flask and werkzeug, with the faults of a real network."""

import socket
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

import flask
from werkzeug.http import http_date
from werkzeug.serving import WSGIRequestHandler, make_server

HOST = "127.0.0.1"


class Request(NamedTuple):
    """A request as a service keeps it; header names are in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Response(flask.Response):
    """A response that may be late or cut off.

    Attributes:
        delay: Seconds to wait before it.
        cut_after: Bytes of the body after which the connection closes; -1 closes it before the status line.
    """

    def __init__(
        self,
        status: int,
        body: bytes | str = b"",
        headers: Mapping[str, str] | None = None,
        *,
        delay: float = 0.0,
        cut_after: int | None = None,
    ) -> None:
        super().__init__(body, status)
        # Flask's default type would say more than a broken service does.
        self.headers.remove("Content-Type")
        self.headers.update(headers or {})
        self.delay = delay
        self.cut_after = cut_after


class SandboxServer:
    """A Flask application that listens on a port until the block is left.

    A subclass adds routes to ``app`` or overrides ``respond``.
    """

    name = "server"

    def __init__(self, clock: Callable[[], datetime] | None = None, port: int = 0, host: str = HOST) -> None:
        """Take a port, 0 is any free one; the clock is for the header ``Date``."""
        now = clock or (lambda: datetime.now(UTC))

        class Handler(WSGIRequestHandler):
            disable_nagle_algorithm = True

            def date_time_string(self, timestamp: float | None = None) -> str:
                return http_date(timestamp or now())

            def log(self, *_: Any) -> None:
                """Log no requests: the services keep them."""

        self.app = flask.Flask(__name__, static_folder=None)
        self.app.json.sort_keys = False  # type: ignore[attr-defined]  # the default provider has it
        self.app.after_request(self._send)
        for status in (404, 405):
            self.app.errorhandler(status)(lambda _: self.respond(current_request()))
        with self._listen(port, host) as listener:
            self.port: int = listener.getsockname()[1]
            self._server = make_server(
                host, self.port, self.app, threaded=True, request_handler=Handler, fd=listener.fileno()
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._closing = threading.Event()

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        """Answer from now on."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Answer no more."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def respond(self, request: Request) -> flask.Response:
        """Answer a request that no route matches."""
        return Response(404, f"nothing is at {request.path}")

    def _send(self, response: flask.Response) -> flask.Response:
        if isinstance(response, Response):
            # An event and not a sleep: closing the service does not wait for its slowest answer.
            self._closing.wait(response.delay)
            if response.cut_after is not None:
                _hang_up(response, response.cut_after)
        return response

    def _listen(self, port: int, host: str) -> socket.socket:
        """Take a port here, because werkzeug ends the process when it is taken."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(128)
        except (OSError, OverflowError) as error:
            listener.close()
            text = f"{self.name}: cannot listen on port {port} ({error})"
            raise OSError(f"{text}. End what uses it, or choose other ports with --port") from None
        return listener


def current_request() -> Request:
    """Return the request that is being answered."""
    asked = flask.request
    headers = {name.lower(): value for name, value in asked.headers.items()}
    return Request(asked.method, asked.path, asked.args.to_dict(), headers, asked.get_data())


def _hang_up(response: flask.Response, after: int) -> None:
    """Close the connection after some bytes of the body; werkzeug ignores that it cannot write any more."""
    connection = flask.request.environ["werkzeug.socket"]
    if after >= 0:
        head = f"HTTP/1.1 {response.status}\r\n{response.headers}"
        connection.sendall(head.encode() + response.get_data()[:after])
    connection.shutdown(socket.SHUT_RDWR)
