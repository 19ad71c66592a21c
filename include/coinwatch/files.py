"""Files that survive a crash: locks, whole-or-not-at-all writes, and logs that end in a whole line."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


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


def _write_aside(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    # A crash may have left a second name of the finished file: writing to it would change that.
    aside.unlink(missing_ok=True)
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return aside


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part; one writer at a time."""
    aside = _write_aside(path, content)
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
    aside = _write_aside(path, content)
    try:
        aside.chmod(0o444)
        # A hard link, unlike an exclusive open, appears with the whole content in it.
        os.link(aside, path)
    finally:
        aside.unlink()
    sync_folder(path.parent)


def cut_torn_line(path: Path) -> bytes:
    """Cut a last line without its end, as power loss in the middle of an append leaves it, and return what was cut.

    The caller holds the file's lock.
    """
    if not path.exists():
        return b""
    with path.open("r+b") as file:
        start = file.seek(0, os.SEEK_END)
        torn = b""
        while start > 0 and b"\n" not in torn:
            before, start = start, max(0, start - 4096)
            torn = os.pread(file.fileno(), before - start, start) + torn
        torn = torn[torn.rfind(b"\n") + 1 :]
        if torn:
            file.truncate(file.seek(0, os.SEEK_END) - len(torn))
            os.fsync(file.fileno())
        return torn


def append_lines(path: Path, lines: bytes) -> None:
    """Append whole lines and sync them to the disk; the caller holds the lock and has cut a torn line.

    Raises:
        OSError: The disk did not take all of it; the file is as it was.
    """
    created = not path.exists()
    with path.open("ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            view = memoryview(lines)
            while view:
                view = view[file.write(view) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise
    if created:
        sync_folder(path.parent)
