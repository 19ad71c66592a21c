"""The raw log of a coin: an append-only CSV of what the API said (contract, section 5)."""

import logging
from collections.abc import Sequence
from pathlib import Path

from coinwatch.errors import CoinwatchError
from coinwatch.files import append_lines, cut_torn_line, locked
from coinwatch.record import RAW_COLUMNS, RawPrice, format_raw_prices, parse_raw_prices

log = logging.getLogger(__name__)

HEADER = (",".join(RAW_COLUMNS) + "\n").encode()

_TIME_LENGTH = len("2026-11-22T10:00:00Z")


class RawLogError(CoinwatchError):
    """A raw log has unexpected content; the message says where and what to do."""

    retryable = False


def append_raw_prices(path: Path, rows: Sequence[RawPrice]) -> list[RawPrice]:
    """Append rows that the log does not have yet; safe to repeat and to run twice at once.

    Args:
        path: The coin's raw CSV; it is created with its header line.
        rows: All of the log's coin.

    Returns:
        The rows that were appended, in the order given.

    Raises:
        RawLogError: The file has another header.
        OSError: The disk did not take the lines; the log is as it was.
    """
    with locked(path):
        torn = cut_torn_line(path)
        if torn:
            log.warning(
                "%s ended in a torn line, which a crash in the middle of a write leaves: %d bytes were cut (%r); "
                "its row comes again from the snapshot",
                path,
                len(torn),
                torn[:200],
            )
        known = _known_keys(path, {row.timestamp for row in rows})
        new = [row for row in {row.key: row for row in rows}.values() if row.key not in known]
        head = b"" if path.exists() and path.stat().st_size else HEADER
        if new:
            append_lines(path, head + format_raw_prices(new, header=False).encode())
        return new


def stored_timestamps(path: Path, since: str) -> set[str]:
    """The timestamps that a raw log has a row for, live or history, from a time on (as texts: they sort as times)."""
    if not path.exists():
        return set()
    with path.open("rb") as file:
        _check_header(path, file.readline())
        times = {line[:_TIME_LENGTH].decode() for line in file if line.endswith(b"\n")}
    return {time for time in times if time >= since}


def _known_keys(path: Path, timestamps: set[str]) -> set[tuple[str, str, str, str]]:
    # A scan, not an index: a year of hours is 1.3 MB and takes milliseconds, and there is nothing to fall out of step.
    if not path.exists() or not path.stat().st_size:
        return set()
    wanted = {timestamp.encode() for timestamp in timestamps}
    with path.open("rb") as file:
        _check_header(path, file.readline())
        lines = b"".join(line for line in file if line[:_TIME_LENGTH] in wanted)
    return {row.key for row in parse_raw_prices(lines.decode())}


def strip_header(path: Path, lines: bytes) -> bytes:
    """The rows of a raw log that was read from its beginning.

    Raises:
        RawLogError: The file has another header.
    """
    header, newline, rows = lines.partition(b"\n")
    if lines:
        _check_header(path, header + newline)
    return rows


def _check_header(path: Path, header: bytes) -> None:
    if header != HEADER:
        raise RawLogError(
            f"{path} does not start with the raw log's header line but with {header[:200]!r}: another file stands in "
            f"its place. Move it away; its rows come again from the snapshots or from history"
        )
