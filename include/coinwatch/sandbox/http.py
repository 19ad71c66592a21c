"""A small HTTP server on loopback, with raw control over what it answers: late, torn or not at all."""

import json
import socket
import socketserver
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

HOST = "127.0.0.1"


class CannotListen(OSError):
    """A port is taken, or may not be used; the message names it."""


def cannot_listen(port: int, error: OSError | OverflowError) -> CannotListen:
    """What to say of a port that cannot be had."""
    reason = error.strerror if isinstance(error, OSError) else "ports go up to 65535"
    return CannotListen(f"port {port} cannot be listened on ({reason})")


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked.

    Attributes:
        method: GET, POST, …
        path: Without the query.
        query: Its parameters.
        headers: By lower-case name.
        body: As received.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class Response:
    """What is answered.

    Attributes:
        status: HTTP status.
        body: As sent.
        headers: Besides the length.
        delay: Seconds to wait before.
        cut_after: Bytes of the body after which the connection is closed, although more were announced; -1 closes it
            before anything was said.
    """

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut_after: int | None = None


def json_response(content: Any, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(status, json.dumps(content).encode(), {"Content-Type": "application/json; charset=utf-8"})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Take the port, without asking the machine's DNS for a name that nobody reads."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle of an answer is no news here; anything else is a bug."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class SandboxServer(ABC):
    """A service that answers on loopback until it is closed.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, clock: Callable[[], datetime] | None = None, port: int = 0, host: str = HOST) -> None:
        """Take the port.

        Args:
            clock: Tells the service's own time, which its answers carry; this machine's, if absent.
            port: To listen on; any free one if 0.
            host: To listen on; in a container others than this machine's own ask.

        Raises:
            CannotListen: The port cannot be had.
        """
        self._date = clock
        self._closing = threading.Event()
        try:
            self._server = _Server((host, port), self._handler())
        except (OSError, OverflowError) as error:
            raise cannot_listen(port, error) from None
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

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

    @abstractmethod
    def respond(self, request: Request) -> Response:
        """Answer one request; called from several threads."""

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                length = int(self.headers.get("Content-Length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                query = dict(parse_qsl(url.query, keep_blank_values=True))
                body = self.rfile.read(length)
                self._send(service.respond(Request(self.command, url.path, query, headers, body)))

            do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the names that http.server asks for

            def _send(self, response: Response) -> None:
                # Not a plain sleep: closing the service must not wait for its slowest answer.
                service._closing.wait(response.delay)
                self.close_connection = response.cut_after is not None
                if response.cut_after == -1:
                    return
                self.send_response(response.status)
                for name, value in response.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(response.body)))
                self.end_headers()
                self.wfile.write(response.body[: response.cut_after])

            def date_time_string(self, timestamp: float | None = None) -> str:
                """The service's own time, which need not be this machine's."""
                if timestamp is None and service._date is not None:
                    timestamp = service._date().timestamp()
                return super().date_time_string(timestamp)

            def log_message(self, *_: object) -> None:
                """Say nothing: the services keep what they were asked."""

        return Handler


def listening_socket(port: int, host: str = HOST) -> socket.socket:
    """A socket that has a port, for a server that complains about a taken one in its own way.

    Raises:
        CannotListen: The port cannot be had.
    """
    listener = socket.socket()
    # What is left of a connection that was closed a moment ago is no obstacle.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        raise cannot_listen(port, error) from None
    return listener
