"""Ports on loopback: whether they are free, and which process has them if they are not."""

import contextlib
import os
import socket
from collections.abc import Mapping

import psutil

from coinwatch.errors import InvalidAction
from coinwatch.local.environment import HOST


def read_port(environ: Mapping[str, str], variable: str, default: int) -> int:
    """Return the port that a variable of the environment sets; any user may listen on it."""
    text = environ.get(variable) or str(default)
    if not (text.isascii() and text.isdecimal() and 1024 <= int(text) <= 65535):
        raise InvalidAction(f"{variable}={text!r}: a port from 1024 to 65535 is needed")
    return int(text)


def check_ports(page: int, sandbox: int | None) -> None:
    """Check that Airflow's port and the sandbox's three are free; the error has a line for each that is not."""
    ports = [("Airflow's page", page)]
    if sandbox:
        ports += [
            (f"the sandbox's {name}", sandbox + offset) for offset, name in enumerate(("CoinGecko", "Slack", "S3"))
        ]
    problems = []
    for purpose, port in ports:
        if port > 65535:
            problems.append(f"port {port} ({purpose}) does not exist: 65535 is the last")
        elif port == page and purpose != "Airflow's page":
            problems.append(f"port {port} ({purpose}) is needed twice")
        elif not _is_free(port):
            problems.append(f"port {port} ({purpose}) is in use{_by_process(port)}")
    if problems:
        problems.append(
            "COINWATCH_PORT sets the port of Airflow's page, COINWATCH_SANDBOX_PORT the first of the sandbox's three"
        )
        raise InvalidAction("\n".join(problems))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: what is left of a connection that was closed a moment ago does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _by_process(port: int) -> str:
    """Return which process listens on a port, as far as this user may know."""
    with contextlib.suppress(psutil.Error, PermissionError):
        for connection in psutil.net_connections(kind="tcp"):
            is_listener = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
            if is_listener and connection.pid not in (None, os.getpid()):
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""
