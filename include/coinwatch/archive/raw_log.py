"""The raw log of a coin: an append-only CSV of what the API answered (contract, section 5)."""

import hashlib
import os
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from coinwatch.errors import CoinwatchError
from coinwatch.files import append_lines, locked, open_log
from coinwatch.record import RAW_COLUMNS, Key, RawPrice, format_raw_prices, parse_raw_prices

HEADER = (",".join(RAW_COLUMNS) + "\n").encode()

_TIME_LENGTH = len("2026-11-22T10:00:00Z")


class RawLogError(CoinwatchError):
    """A raw log has unexpected content; the message says where and what to do."""

    retryable = False


@dataclass(frozen=True, slots=True)
class LoadedRows:
    """What the warehouse has of a raw log, as of one moment.

    Attributes:
        position: Bytes of the log that were loaded: the end of a whole line.
        tail_length: Bytes before the position that ``tail_sha256`` is of.
        tail_sha256: Shows whether the loaded bytes have changed since.
        keys: Keys of the loaded rows, of the timestamps in question at least.
    """

    position: int
    tail_length: int
    tail_sha256: str
    keys: AbstractSet[Key]


def append_raw_prices(
    path: Path, rows: Sequence[RawPrice], loaded: LoadedRows | None = None, *, sync: bool = True
) -> list[RawPrice]:
    """Append rows that the log does not have yet; safe to repeat and to run twice at once.

    Args:
        path: The coin's raw CSV; it is created with its header line.
        rows: All of the log's coin.
        loaded: What the warehouse has of the log; without it the whole log is read.
        sync: Whether to sync the log to the disk; otherwise the caller does, once for many logs.

    Returns:
        The rows that were appended, in the order given.

    Raises:
        RawLogError: The file has another header.
        OSError: The disk did not take the lines; the log is as it was.
    """
    timestamps = [row.timestamp for row in rows]
    if not timestamps:
        return []
    with locked(path), open_log(path) as file:
        known = _stored_keys(file, path, min(timestamps), max(timestamps), loaded)
        new = [row for row in {row.key: row for row in rows}.values() if row.key not in known]
        if new:
            head = b"" if file.seek(0, os.SEEK_END) else HEADER
            append_lines(file, head + format_raw_prices(new, header=False).encode(), sync=sync)
        return new


def stored_keys(path: Path, first: str, last: str, loaded: LoadedRows | None = None) -> AbstractSet[Key]:
    """Return the keys of a log's rows whose timestamp is between two, both included (as texts, which sort as times).

    Args:
        path: The coin's raw CSV.
        first: The first timestamp.
        last: The last timestamp.
        loaded: What the warehouse has of the log: only the lines after it are read, if it still fits the file.

    Raises:
        RawLogError: The file has another header.
    """
    if not path.exists():
        return frozenset()
    with path.open("rb", buffering=0) as file:
        return _stored_keys(file, path, first, last, loaded)


def _stored_keys(file: BinaryIO, path: Path, first: str, last: str, loaded: LoadedRows | None) -> AbstractSet[Key]:
    known: AbstractSet[Key] = frozenset()
    lines = None if loaded is None else _lines_after(file, loaded)
    if loaded is None or lines is None:
        file.seek(0)
        lines = strip_header(path, file.read())
    else:
        known = loaded.keys
    whole = lines[: lines.rfind(b"\n") + 1].splitlines(keepends=True)
    wanted = b"".join(line for line in whole if first.encode() <= line[:_TIME_LENGTH] <= last.encode())
    return known | {row.key for row in parse_raw_prices(wanted.decode())} if wanted else known


def _lines_after(file: BinaryIO, loaded: LoadedRows) -> bytes | None:
    """Return what follows the loaded part of a log; None if the log was cut, replaced or edited since."""
    if not loaded.position:
        return None
    file.seek(loaded.position - loaded.tail_length)
    content = file.read()
    tail = content[: loaded.tail_length]
    if len(tail) < loaded.tail_length or hashlib.sha256(tail).hexdigest() != loaded.tail_sha256:
        return None
    return content[loaded.tail_length :]


def strip_header(path: Path, lines: bytes) -> bytes:
    """Return the rows of a raw log that was read from its beginning.

    Raises:
        RawLogError: The file has another header.
    """
    header, newline, rows = lines.partition(b"\n")
    if newline and header + newline != HEADER:
        raise RawLogError(
            f"{path} does not start with the raw log's header line but with {header[:200]!r}. Move the file away; its "
            "rows come again from the snapshots or from history"
        )
    return rows
