"""Reading a growing log from where the last reader stopped (design, decision 2)."""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, delete, select

from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import upsert

log = logging.getLogger(__name__)

_TAIL = 4096
"""Bytes before a position that are looked at again, to see whether what was read has been changed since."""


@dataclass(frozen=True, slots=True)
class NewLines:
    """What a log has that was not read before.

    Attributes:
        lines: Whole lines only; a torn last one waits for its end.
        start: Byte at which they start: 0 when the log is read from its beginning.
        restarted: Why everything is read again, although it had been read before; empty if it is not.
    """

    log: str
    lines: bytes
    start: int
    restarted: str
    _tail: bytes

    def commit(self, connection: Connection) -> None:
        """Remember, in the caller's transaction, that these lines have been read."""
        upsert(
            connection,
            schema.log_positions,
            [
                {
                    "log": self.log,
                    "position": self.start + len(self.lines),
                    "tail_length": len(self._tail),
                    "tail_sha256": hashlib.sha256(self._tail).hexdigest(),
                }
            ],
        )


def read_new_lines(connection: Connection, name: str, path: Path) -> NewLines:
    """Read what has been appended to a log since its position was last committed.

    When the log is shorter than that, or the bytes before it are others, everything is read again: whoever stores it
    does so idempotently.

    Args:
        connection: The transaction in which the lines will be stored and the position committed.
        name: Under which the position is kept.
        path: The log; it need not be there yet.
    """
    content_from, restarted = _start(connection, name, path)
    if not path.exists():
        return NewLines(name, b"", 0, restarted, b"")
    with path.open("rb") as file:
        tail_start = max(0, content_from - _TAIL)
        file.seek(tail_start)
        content = file.read()
    lines = content[content_from - tail_start : content.rfind(b"\n") + 1]
    tail = content[: content.rfind(b"\n") + 1][-_TAIL:]
    return NewLines(name, lines, content_from, restarted, tail)


def forget_position(connection: Connection, name: str) -> None:
    """Have a log read from its beginning the next time."""
    connection.execute(delete(schema.log_positions).where(schema.log_positions.c.log == name))


def _start(connection: Connection, name: str, path: Path) -> tuple[int, str]:
    table = schema.log_positions
    known = connection.execute(select(table).where(table.c.log == name)).one_or_none()
    if known is None:
        return 0, ""
    size = path.stat().st_size if path.exists() else 0
    if size < known.position:
        return 0, f"{path} has {size} bytes, but {known.position} had been read: it was cut or replaced"
    if known.position == 0:
        return 0, ""
    with path.open("rb") as file:
        file.seek(known.position - known.tail_length)
        tail = file.read(known.tail_length)
    if hashlib.sha256(tail).hexdigest() != known.tail_sha256:
        return 0, f"{path} was changed before byte {known.position}, up to which it had been read"
    return known.position, ""
