"""Ports on loopback: whether they are free, and who has them if they are not."""

import errno
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psutil

from coinwatch.local.errors import WrongInput

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Port:
    """A port that a run needs.

    Attributes:
        number: 1 to 65535.
        purpose: What it is for.
        remedy: How to choose another one.
    """

    number: int
    purpose: str
    remedy: str


def read_port(environ: Mapping[str, str], variable: str, default: int) -> int:
    """A port from the environment.

    Raises:
        WrongInput: The variable's value is no port.
    """
    text = environ.get(variable, "")
    try:
        return parse_port(text) if text else default
    except ValueError as error:
        raise WrongInput(f"{variable}={text!r}: {error}") from None


def parse_port(text: str) -> int:
    """Read a port that anybody may listen on.

    Raises:
        ValueError: It is none.
    """
    if not (text.isascii() and text.isdecimal() and 1024 <= int(text) <= 65535):
        raise ValueError("a port from 1024 to 65535 is needed")
    return int(text)


def check_ports(ports: Iterable[Port]) -> None:
    """See that all ports are free.

    Raises:
        WrongInput: At least one is not; the message has a line for each.
    """
    ports = list(ports)
    numbers = [port.number for port in ports]
    problems = [
        f"port {port.number} is needed twice ({port.purpose}). {port.remedy}"
        for index, port in enumerate(ports)
        if port.number in numbers[:index]
    ]
    problems += [
        f"port {port.number} ({port.purpose}) does not exist: 65535 is the last. {port.remedy}"
        for port in ports
        if port.number > 65535
    ]
    problems += [
        f"port {port.number} ({port.purpose}) is taken{_by_whom(port.number)}. {port.remedy}"
        for port in ports
        if port.number <= 65535 and not _is_free(port.number)
    ]
    if problems:
        raise WrongInput("\n".join(problems))


def _is_free(number: int) -> bool:
    with socket.socket() as probe:
        # As servers do: what is left of a connection that was closed a moment ago is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, number))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def _by_whom(number: int) -> str:
    """Who listens on a port, as far as this user may know."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.AccessDenied, PermissionError):
        return ""
    for connection in connections:
        listening = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == number
        if listening and connection.pid not in (None, os.getpid()):
            return f" by {_describe(connection.pid)}"
    return ""


def _describe(pid: int) -> str:
    try:
        return f"process {pid} ({psutil.Process(pid).name()})"
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return f"process {pid}"
