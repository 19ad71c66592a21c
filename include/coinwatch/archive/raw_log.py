"""The raw log of a coin: an append-only CSV of what the API answered (contract, section 5)."""

import hashlib
import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from coinwatch.errors import CoinwatchError
from coinwatch.files import append_lines, cut_torn_line, locked
from coinwatch.record import RAW_COLUMNS, Key, RawPrice, format_raw_prices, parse_raw_prices

log = logging.getLogger(__name__)

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


def append_raw_prices(path: Path, rows: Sequence[RawPrice], loaded: LoadedRows | None = None) -> list[RawPrice]:
    """Append rows that the log does not have yet; safe to repeat and to run twice at once.

    Args:
        path: The coin's raw CSV; it is created with its header line.
        rows: All of the log's coin.
        loaded: What the warehouse has of the log; without it the whole log is read.

    Returns:
        The rows that were appended, in the order given.

    Raises:
        RawLogError: The file has another header.
        OSError: The disk did not take the lines; the log is as it was.
    """
    timestamps = [row.timestamp for row in rows]
    if not timestamps:
        return []
    with locked(path):
        torn = cut_torn_line(path)
        if torn:
            log.warning("%s: cut a torn last line of %d bytes (%r) after a crash", path, len(torn), torn[:200])
        known = stored_keys(path, min(timestamps), max(timestamps), loaded)
        new = [row for row in {row.key: row for row in rows}.values() if row.key not in known]
        head = b"" if path.exists() and path.stat().st_size else HEADER
        if new:
            append_lines(path, head + format_raw_prices(new, header=False).encode())
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
    lines = None if loaded is None else _lines_after(path, loaded)
    if loaded is None or lines is None:
        known: AbstractSet[Key] = frozenset()
        lines = strip_header(path, path.read_bytes()) if path.exists() else b""
    else:
        known = loaded.keys
    whole = lines[: lines.rfind(b"\n") + 1].splitlines(keepends=True)
    wanted = b"".join(line for line in whole if first.encode() <= line[:_TIME_LENGTH] <= last.encode())
    return known | {row.key for row in parse_raw_prices(wanted.decode())}


def _lines_after(path: Path, loaded: LoadedRows) -> bytes | None:
    """Return what follows the loaded part of a log; None if the log was cut, replaced or edited since."""
    if not loaded.position or not path.exists():
        return None
    with path.open("rb") as file:
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
