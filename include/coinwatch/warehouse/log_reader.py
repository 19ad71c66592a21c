"""Growing logs, read from the positions where the last reader stopped (design, decision 2)."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Connection, Row, delete, select

from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import upsert

TAIL = 4096
"""Bytes before a position that are compared again: they show whether a log was changed after it was read."""

_l = schema.log_positions.c


@dataclass(frozen=True, slots=True)
class NewLines:
    """The lines of a log that were not read before.

    Attributes:
        log: Name of the position.
        lines: Whole lines; a torn last one waits for its end.
        start: Byte at which they start.
        restarted: Why the log is read again from its beginning; empty if it is not.
        tail: The bytes before the end of these lines, to compare the next time.
    """

    log: str
    lines: bytes
    start: int
    restarted: str
    tail: bytes


def read_logs(connection: Connection, logs: Mapping[str, Path], limit: int | None = None) -> list[NewLines]:
    """Read what was appended to logs since their positions were committed.

    A log that is shorter than its position, or has other bytes before it, is read again from its beginning: storing
    its lines has to be idempotent.

    Args:
        connection: The transaction that stores the lines and commits the positions.
        logs: Path of each log by the name of its position; it need not exist.
        limit: About how many bytes to read in all; a log is left out once they are read.
    """
    positions = {row.log: row for row in connection.execute(select(schema.log_positions)) if row.log in logs}
    found = []
    for name, path in logs.items():
        if limit is not None and limit <= 0:
            break
        new = _read(name, path, positions.get(name), limit)
        found.append(new)
        if limit is not None:
            limit -= len(new.lines)
    return found


def commit_positions(connection: Connection, read: Sequence[NewLines]) -> None:
    """Store the positions after lines that were read, in the transaction that stores the lines."""
    rows = [
        {
            "log": new.log,
            "position": new.start + len(new.lines),
            "tail_length": len(new.tail),
            "tail_sha256": hashlib.sha256(new.tail).hexdigest(),
        }
        for new in read
    ]
    upsert(connection, schema.log_positions, rows)


def forget_position(connection: Connection, name: str) -> None:
    """Delete a position: the log is read from its beginning the next time."""
    connection.execute(delete(schema.log_positions).where(_l.log == name))


def _read(name: str, path: Path, position: Row[Any] | None, limit: int | None) -> NewLines:
    start = position.position if position else 0
    if not path.exists():
        restarted = f"{path} is missing, but {start} bytes of it were read" if start else ""
        return NewLines(name, b"", 0, restarted, b"")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < start:
            restarted = f"{path} has {size} bytes, but {start} were read: it was cut or replaced"
        else:
            before = max(0, start - TAIL)
            content = _read_from(file, before, start, limit)
            if position is None or _is_tail(content[: start - before], position):
                whole = content[: content.rfind(b"\n") + 1]
                return NewLines(name, whole[start - before :], start, "", whole[-TAIL:])
            restarted = f"{path} was changed before byte {start}, up to which it was read"
        content = _read_from(file, 0, 0, limit)
        whole = content[: content.rfind(b"\n") + 1]
        return NewLines(name, whole, 0, restarted, whole[-TAIL:])


def _read_from(file: BinaryIO, before: int, start: int, limit: int | None) -> bytes:
    file.seek(before)
    return file.read() if limit is None else file.read(start - before + limit) + file.readline()


def _is_tail(content: bytes, position: Row[Any]) -> bool:
    tail = content[len(content) - position.tail_length :]
    return bool(hashlib.sha256(tail).hexdigest() == position.tail_sha256)
