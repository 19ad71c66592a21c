"""Files that survive a crash: locks, whole-or-not-at-all writes, and logs that end in a whole line."""

import contextlib
import fcntl
import logging
import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger(__name__)

SYNC_ALL_FROM = 32
"""From more files on one sync of all file systems is faster than one for each."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file among all processes of this machine; the kernel frees it at a crash.

    The lock is a file beside it: a file that is replaced would take its locks with it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_aside(path: Path, parts: Iterable[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    # A crash may have left a second name of the finished file: writing to it would change that.
    aside.unlink(missing_ok=True)
    with aside.open("wb") as file:
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
    return aside


def replace_file(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part; one writer at a time."""
    aside = _write_aside(path, [content] if isinstance(content, bytes) else content)
    try:
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def create_file(path: Path, content: bytes) -> None:
    """Write a file once: whole, read-only, and never over another one; one writer at a time.

    Raises:
        FileExistsError: The file exists.
    """
    aside = _write_aside(path, [content])
    try:
        aside.chmod(0o444)
        # A hard link, unlike an exclusive open, appears with the whole content in it.
        os.link(aside, path)
    finally:
        aside.unlink()
    sync_folder(path.parent)


def open_log(path: Path) -> BinaryIO:
    """Open a log for reading and appending; the caller holds its lock.

    A last line without its end, as power loss in the middle of an append leaves it, is cut, and the log says so.
    """
    file = path.open("a+b", buffering=0)
    end = start = file.seek(0, os.SEEK_END)
    torn = b""
    while start > 0 and b"\n" not in torn:
        # An ordinary log ends in a line end: one byte is read.
        before, start = start, max(0, start - (4096 if torn else 1))
        torn = os.pread(file.fileno(), before - start, start) + torn
    torn = torn[torn.rfind(b"\n") + 1 :]
    if torn:
        log.warning("%s: cut a torn last line of %d bytes (%r) after a crash", path, len(torn), torn[:200])
        file.truncate(end - len(torn))
        os.fsync(file.fileno())
    return file


def append_lines(file: BinaryIO, lines: bytes, *, sync: bool = True) -> None:
    """Append whole lines to an open log and sync them to the disk.

    Without ``sync`` the caller syncs with ``sync_files``, once for all files of a step.

    Raises:
        OSError: The disk did not take all of it; the log is as it was.
    """
    end = file.seek(0, os.SEEK_END)
    try:
        view = memoryview(lines)
        while view:
            view = view[file.write(view) :]
        if sync:
            os.fsync(file.fileno())
    except OSError:
        file.truncate(end)
        raise
    if sync and not end:
        sync_folder(Path(file.name).parent)


def sync_files(paths: Collection[Path]) -> None:
    """Make what was written to files survive a power loss; many of them with one call, which syncs all file systems."""
    if len(paths) > SYNC_ALL_FROM:
        os.sync()
        return
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    for folder in {path.parent for path in paths}:
        sync_folder(folder)
