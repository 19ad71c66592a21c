import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from coinwatch.local.processes import tail

INCLUDE = Path(__file__).resolve().parents[3] / "include"

RUN = """
import os, signal, sys
from pathlib import Path
from coinwatch.errors import CoinwatchError
from coinwatch.local.processes import Processes

folder = Path(sys.argv[1])
try:
    with Processes(os.environ, folder, patience=0.2) as processes:
        processes.run("step", [sys.executable, folder / "step.py"], folder / "output")
        processes.start("component", [sys.executable, folder / "component.py"])
        while True:
            processes.wait(0.05)
except CoinwatchError as error:
    print(error)
    raise SystemExit(error.exit_status) from None
"""

STUBBORN = """
import os, signal, subprocess, sys, time
from pathlib import Path

def note():
    with open(Path(__file__).with_name("pids"), "a") as pids:
        pids.write(f"{os.getpid()}\\n")

if sys.argv[1:] == ["orphan"]:
    # Of a session of its own, deaf, and about to lose its parent.
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
elif sys.argv[1:] == ["child"]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    subprocess.Popen([sys.executable, __file__, "child"])
    subprocess.run([sys.executable, __file__, "orphan"], start_new_session=False)
note()
time.sleep(60)
"""


def wait_for(condition, seconds=20):
    """Wait until something holds; fail if it takes too long."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
    return value


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def run(tmp_path):
    """Start a run with one component; what is left of it at the end is killed."""
    started = []

    def start(component, step="print('a result')"):
        (tmp_path / "step.py").write_text(step)
        (tmp_path / "component.py").write_text(component)
        (tmp_path / "run.py").write_text(RUN)
        environ = {**os.environ, "PYTHONPATH": str(INCLUDE)}
        command = [sys.executable, tmp_path / "run.py", tmp_path]
        process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    for pid in noted(tmp_path):
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def noted(folder):
    path = folder / "pids"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")
def test_children_that_are_deaf_and_orphans_of_another_session_are_gone_after_a_signal(run, tmp_path, number):
    process = run(STUBBORN)
    pids = wait_for(lambda: len(found := noted(tmp_path)) == 3 and found)
    assert all(map(is_alive, pids))
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert (process.returncode, output) == (128 + number, f"ended by signal {number}\n")
    assert [pid for pid in pids if is_alive(pid)] == []


@pytest.mark.parametrize(
    ("step", "component", "problem"),
    [
        pytest.param("print('a result')\nraise SystemExit('no space')", "", "step ended with status 1", id="step"),
        pytest.param(
            "print('a result')", "raise SystemExit('no space')", "component ended with status 1", id="component"
        ),
    ],
)
def test_a_process_that_ends_takes_the_run_with_it_and_is_reported_with_the_end_of_its_log(
    run, tmp_path, step, component, problem
):
    output, _ = run(component, step).communicate(timeout=20)
    log = tmp_path / f"{problem.split()[0]}.log"
    assert output == f"{problem}. The end of its log {log}:\n    no space\n"
    assert (tmp_path / "output").read_text() == "a result\n"


def test_a_component_that_is_killed_is_reported_by_the_signal(run, tmp_path):
    process = run(STUBBORN)
    pids = wait_for(lambda: len(found := noted(tmp_path)) == 3 and found)
    (component,) = [pid for pid in pids if psutil.Process(pid).cmdline()[-1].endswith("component.py")]
    os.kill(component, signal.SIGKILL)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert output.rstrip() == f"component was ended by SIGKILL. Its log {tmp_path / 'component.log'} is empty"
    assert [pid for pid in pids if is_alive(pid)] == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_the_components_end_even_if_the_run_is_killed(run, tmp_path):
    process = run(
        "import os, time, pathlib\npathlib.Path(__file__).with_name('pids').write_text(str(os.getpid()))\n"
        "time.sleep(60)\n"
    )
    pids = wait_for(lambda: noted(tmp_path))
    process.kill()
    wait_for(lambda: not any(map(is_alive, pids)))


def test_the_tail_is_the_last_lines_of_a_text_whatever_its_length(tmp_path):
    path = tmp_path / "log"
    assert tail(path) == ""
    path.write_bytes(b"\xff" * 100_000 + b"\nlast but one\nlast\n")
    assert tail(path, 2) == "last but one\nlast"
