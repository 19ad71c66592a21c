"""Child processes: each in a group of its own, watched while they run, and all gone at the end.

"All" means every descendant, also one whose parent has ended and one that made itself a session of its own. On Linux
such orphans come to this process (a "subreaper"), so that it can find and end them.
"""

import contextlib
import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Self

import psutil

from coinwatch.local.errors import Interrupted, RunError, WrongInput

PATIENCE = 6.0
"""Seconds that a process gets to end by itself; then its descendants are asked too, and get half as many."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_TICK = 0.1
_TAIL_BYTES = 16_384


class Signals:
    """The signals that ask for an end, noticed wherever the run waits; never in the middle of something.

    Attributes:
        received: The first one that came.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Notice them from now on."""
        self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        """Leave them to whoever had them before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = self.received or number

    def wait(self, seconds: float) -> None:
        """Wait.

        Raises:
            Interrupted: One of the signals came, before or meanwhile.
        """
        end = time.monotonic() + seconds
        while True:
            if self.received is not None:
                raise Interrupted(self.received)
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _TICK))


class Processes:
    """The processes of a run; when this is left, none of them nor of their descendants is there any more.

    Args:
        signals: What interrupts waiting.
        patience: As `PATIENCE`.
    """

    def __init__(self, signals: Signals, patience: float = PATIENCE) -> None:
        self._signals = signals
        self._patience = patience
        self._running: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}
        self._not_ours = {child.pid for child in psutil.Process().children()}

    def __enter__(self) -> Self:
        """Be the one who orphans come to."""
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        return self

    def __exit__(self, *_: object) -> None:
        """End everything."""
        self.stop()

    def start(self, name: str, command: Sequence[str | Path], environ: Mapping[str, str], log: Path) -> None:
        """Start a process that is to run until the end.

        Args:
            name: What people call it.
            command: Program and arguments.
            environ: Its whole environment.
            log: File for everything that it says; begun anew.
        """
        self._running[name] = self._popen(command, environ, log), log

    def run(self, name: str, command: Sequence[str | Path], environ: Mapping[str, str], log: Path) -> None:
        """Run a process to its end.

        Raises:
            RunError: It failed, or another process ended meanwhile.
            Interrupted: A signal came.
        """
        process = self._popen(command, environ, log)
        while process.poll() is None:
            self.check()
            self._signals.wait(_TICK)
        if process.returncode:
            raise RunError(_ended(name, process.returncode, log))

    def check(self) -> None:
        """See that all processes that were started run.

        Raises:
            RunError: One has ended; the message has the end of its log.
        """
        for name, (process, log) in self._running.items():
            if process.poll() is not None:
                raise RunError(_ended(name, process.returncode, log))

    def stop(self) -> None:
        """Ask all processes to end, the last one first; then their descendants; kill what is left.

        Raises:
            RunError: The kernel does not let one go.
        """
        for component, _ in reversed(self._running.values()):
            component.terminate()
        self._wait_until(
            lambda: all(component.poll() is not None for component, _ in self._running.values()), self._patience
        )
        if left := self._descendants():
            for process in left:
                _send(process, signal.SIGTERM)
            self._wait_until(lambda: not self._descendants(), self._patience / 2)
        self._kill()
        self._running.clear()

    def _kill(self) -> None:
        if sys.platform != "linux":
            # No orphans come to us here: those that stayed in their group can still be reached.
            for component, _ in self._running.values():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(component.pid, signal.SIGKILL)
        # Again and again: while one is killed another one can start a child.
        end = time.monotonic() + self._patience
        while left := self._descendants():
            if time.monotonic() > end:
                raise RunError(f"these processes cannot be ended: {sorted(process.pid for process in left)}")
            for process in left:
                _send(process, signal.SIGKILL)
            time.sleep(_TICK / 10)

    @staticmethod
    def _wait_until(done: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not done() and time.monotonic() < end:
            time.sleep(_TICK / 2)

    def _popen(self, command: Sequence[str | Path], environ: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            return subprocess.Popen(  # noqa: S603 - our own commands
                command,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches this process only, which then ends the others in order.
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - it makes one system call, and no thread is running
            )

    def _descendants(self) -> list[psutil.Process]:
        """What is alive of all that was started; the dead among those that came to us are buried."""
        ours = [child for child in psutil.Process().children() if child.pid not in self._not_ours]
        alive = []
        for child in ours:
            with contextlib.suppress(psutil.NoSuchProcess):
                alive += [child, *child.children(recursive=True)]
        return [process for process in alive if not self._is_dead(process)]

    def _is_dead(self, process: psutil.Process) -> bool:
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                return False
            if process.ppid() == os.getpid():
                self._bury(process.pid)
        except psutil.NoSuchProcess:
            pass
        return True

    def _bury(self, pid: int) -> None:
        for process, _ in self._running.values():
            if process.pid == pid:
                process.poll()
                return
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _end_with_parent() -> None:
    """In a child, before its program: have it end when this process is killed and can do nothing more."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _send(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _ended(name: str, status: int, log: Path) -> str:
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    said = tail(log)
    return f"{name} {how}. " + (f"The end of its log {log}:\n{indent(said)}" if said else f"Its log {log} is empty")


def tail(path: Path, lines: int = 10) -> str:
    """The last lines of a text file; empty if it is not there."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def indent(text: str) -> str:
    """Set a text off from what is around it."""
    return "\n".join(f"    {line}" for line in text.splitlines())


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold a folder for this run alone; the kernel lets go of it at a crash.

    Raises:
        WrongInput: Another run holds it.
    """
    with (folder / "run.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "not known"
            raise WrongInput(
                f"a run is using {folder} already (process {owner}). End that one first, by Ctrl-C or by SIGTERM"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
