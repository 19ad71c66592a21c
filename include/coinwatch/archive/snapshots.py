"""The archive: every answer of the API byte for byte, written once (contract, section 5; design, decision 1).

A snapshot is three things: the body, the rows read from it, and a line in the manifest, which is chained by hashes. A
crash may come between any two of them, so all three are first written into one pending file, as a whole or not at all;
from there they are published, by this run or by the next one that needs the snapshot.
"""

import base64
import contextlib
import hashlib
import itertools
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from coinwatch.errors import CoinwatchError
from coinwatch.files import append_lines, create_file, locked, open_log, replace_file
from coinwatch.record import RawPrice, format_raw_prices, parse_raw_prices
from coinwatch.times import compact_time

log = logging.getLogger(__name__)

FIRST_PREVIOUS = "0" * 64
"""Stands for the hash of the line before in the manifest's first line."""

_NAME = re.compile(r"\d{8}T\d{6}Z(-[A-Za-z0-9._-]+)?")


class ArchiveError(CoinwatchError):
    """The archive has missing or unexpected content; the message says where and what to do."""

    retryable = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API answered to one request.

    Attributes:
        request: Method and URL with its parameters; no secrets.
        status: HTTP status.
        headers: The headers that matter, by lower-case name.
        body: As received, byte for byte.
        fetched_at: When it was received (ISO 8601 UTC).
    """

    request: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    fetched_at: str


def snapshot_name(as_of: datetime, suffix: str = "") -> str:
    """Return the name of a run's snapshot: its as-of time, with a suffix where a run has several."""
    return f"{compact_time(as_of)}-{suffix}" if suffix else compact_time(as_of)


class Archive:
    """The folder of the snapshots.

    Attributes:
        folder: Holds ``<name>.json``, ``<name>.csv`` and ``manifest.jsonl``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = folder / "manifest.jsonl"
        self._pending = folder / ".pending"

    def has(self, name: str) -> bool:
        """Return whether a snapshot exists, publishing one that a crash left pending."""
        with locked(self.manifest):
            return self._complete(name)

    def save(self, name: str, answer: Answer, rows: Sequence[RawPrice]) -> bool:
        """Write a snapshot, unless one of this name exists: the first one stays.

        Args:
            name: From ``snapshot_name``.
            answer: The body, and what the manifest says about it.
            rows: Read from it; none from an answer that is an error.

        Returns:
            Whether it was written.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a snapshot name")
        with locked(self.manifest):
            if self._complete(name):
                log.warning("snapshot %s exists and stays unchanged; a second answer for it is dropped", name)
                return False
            body = base64.b64encode(answer.body).decode()
            content = {"answer": asdict(answer) | {"body": body}, "rows": {"csv": format_raw_prices(rows)}}
            replace_file(self._pending / name, json.dumps(content).encode())
            self._publish(name, content)
            (self._pending / name).unlink()
            return True

    def save_refused(self, as_of: datetime, suffix: str, answer: Answer) -> str:
        """Archive an answer without any price under the next free number of its run; return its name."""
        names = (snapshot_name(as_of, f"{suffix}-{number}") for number in itertools.count(1))
        return next(name for name in names if not self.has(name) and self.save(name, answer, []))

    def rows(self, name: str) -> list[RawPrice]:
        """Return the rows of a snapshot.

        Raises:
            ArchiveError: The snapshot does not exist.
        """
        path = self.folder / f"{name}.csv"
        try:
            _, _, lines = path.read_text(encoding="utf-8").partition("\n")
        except FileNotFoundError:
            raise ArchiveError(f"snapshot {name} has no rows file {path}: was it moved or deleted?") from None
        return list(parse_raw_prices(lines))

    def _complete(self, name: str) -> bool:
        """Publish a pending snapshot; return whether the snapshot exists. The caller holds the lock."""
        pending = self._pending / name
        if pending.exists():
            log.warning("snapshot %s was left pending by a crash; it is published now", name)
            self._publish(name, json.loads(pending.read_bytes()), recovering=True)
            pending.unlink()
            return True
        return (self.folder / f"{name}.json").exists()

    def _publish(self, name: str, content: dict[str, Any], *, recovering: bool = False) -> None:
        body = base64.b64decode(content["answer"].pop("body"))
        rows = content["rows"]["csv"].encode()
        for ending, part in ((".json", body), (".csv", rows)):
            path = self.folder / f"{name}{ending}"
            with contextlib.suppress(FileExistsError):
                create_file(path, part)
            if path.read_bytes() != part:
                raise ArchiveError(f"{path} has other content: snapshots are never replaced. Move it away")
        with open_log(self.manifest) as manifest:
            # Only a crash right after the line was written can bring a snapshot here twice.
            if recovering and self._is_in_manifest(name):
                return
            # Headers that matter are few and bounded by the client, so a line is far shorter than this.
            manifest.seek(max(0, manifest.seek(0, os.SEEK_END) - 65536))
            lines = manifest.read().splitlines(keepends=True)
            entry = {
                "name": name,
                **content["answer"],
                "body_sha256": hashlib.sha256(body).hexdigest(),
                "rows_sha256": hashlib.sha256(rows).hexdigest(),
                "previous_sha256": hashlib.sha256(lines[-1]).hexdigest() if lines else FIRST_PREVIOUS,
            }
            append_lines(manifest, json.dumps(entry).encode() + b"\n")

    def _is_in_manifest(self, name: str) -> bool:
        with self.manifest.open("rb") as lines:
            return any(json.loads(line)["name"] == name for line in lines if name.encode() in line)
