"""The child processes of a run: watched while it runs, and ended with everything that they started.

`airflow standalone` would not do: it does not notice a part that dies, and leaves its children behind at SIGTERM.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Self

import psutil

from coinwatch.errors import CoinwatchError, Interrupted

PATIENCE = 6.0
"""Seconds that the processes get to end by themselves; then their descendants get a SIGTERM and half as long."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_TICK = 0.1


class Processes:
    """The processes of a run. On leaving the block none of them and none of their descendants is running any more.

    Each has a log of its own, and a session of its own, so that Ctrl-C reaches only this process, which then ends the
    others in order. On Linux this process adopts orphans (as a "subreaper"), and therefore finds each descendant.
    """

    def __init__(self, environ: Mapping[str, str], logs: Path, patience: float = PATIENCE) -> None:
        self._environ = environ
        self._logs = logs
        self._patience = patience
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._signal: int | None = None

    def __enter__(self) -> Self:
        """From now on a signal is noticed where the run waits, and never in the middle of something."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        return self

    def __exit__(self, *_: object) -> None:
        """End all processes, and then what they started: by SIGTERM, and by SIGKILL what does not end."""
        end = time.monotonic() + self._patience
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0, end - time.monotonic()))
        _end_descendants(signal.SIGTERM, self._patience / 2)
        if sys.platform != "linux":
            # Orphans are not adopted here; those that stayed in their group can still be reached.
            for process in self._running.values():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
        if left := _end_descendants(signal.SIGKILL, self._patience):
            raise CoinwatchError(f"these processes cannot be ended: {sorted(process.pid for process in left)}")

    def _note(self, number: int, _: FrameType | None) -> None:
        self._signal = self._signal or number

    def start(self, name: str, command: Sequence[str | Path]) -> None:
        """Start a process that has to run until the end."""
        self._running[name] = self._popen(command, self._log(name))

    def run(self, name: str, command: Sequence[str | Path], output: Path | None = None) -> None:
        """Run a process to its end, with its output in a file."""
        process = self._popen(command, self._log(name), output)
        while process.poll() is None:
            self.wait(_TICK)
        if process.returncode:
            raise CoinwatchError(_ended(name, process.returncode, self._log(name)))

    def wait(self, seconds: float) -> None:
        """Wait while all processes run; raise if one ended or a signal came."""
        end = time.monotonic() + seconds
        while True:
            if self._signal is not None:
                raise Interrupted(self._signal)
            for name, process in self._running.items():
                if process.poll() is not None:
                    raise CoinwatchError(_ended(name, process.returncode, self._log(name)))
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, _TICK))

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _popen(self, command: Sequence[str | Path], log: Path, output: Path | None = None) -> subprocess.Popen[bytes]:
        log.parent.mkdir(parents=True, exist_ok=True)
        separate = output.open("wb") if output else contextlib.nullcontext()
        with log.open("wb") as errors, separate as results:
            return subprocess.Popen(  # noqa: S603 - our own commands
                command,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=results or errors,
                stderr=errors,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - it makes one system call, and there is one thread
            )


def _end_descendants(number: int, seconds: float) -> set[psutil.Process]:
    """Send each descendant a signal once, also those that start meanwhile; return those that did not end in time."""
    sent: set[psutil.Process] = set()
    end = time.monotonic() + seconds
    while (left := _descendants()) and time.monotonic() < end:
        for process in left - sent:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        sent |= left
        time.sleep(_TICK / 2)
    return left


def _descendants() -> set[psutil.Process]:
    running = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                running.add(process)
    return running


def _end_with_parent() -> None:
    # Runs in the child: it gets a SIGTERM when this process is killed and can do nothing more.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _ended(name: str, status: int, log: Path) -> str:
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    end = tail(log)
    return f"{name} {how}. " + (f"The end of its log {log}:\n{indent(end)}" if end else f"Its log {log} is empty")


def tail(path: Path, lines: int = 10) -> str:
    """Return the last lines of a text file; empty if there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def indent(text: str) -> str:
    """Return a text with each line indented."""
    return textwrap.indent(text, "    ", lambda _: True)
