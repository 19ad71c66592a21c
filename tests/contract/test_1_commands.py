"""Contract, section 1: the commands. What `make run` does is in `tests/end_to_end/test_make_run.py`."""

import os
import subprocess

import pytest

from coinwatch.settings import PROJECT_DIR


def make(*arguments):
    # Not the variables of a `make test` that runs this.
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=PROJECT_DIR, env=environ, capture_output=True, text=True, check=True).stdout


def test_help_lists_the_targets():
    listed = {line.split()[1] for line in make("help").splitlines() if line.startswith("  make ")}
    assert listed >= {"run", "install", "test", "test-quick", "check", "fix"}


@pytest.mark.parametrize(
    ("variables", "options"),
    [
        ([], []),
        (["LIVE=1"], ["--live"]),
        (["ONCE=1"], ["--once"]),
        (["LIVE=1", "ONCE=1"], ["--live", "--once"]),
        (["LIVE=0", "ONCE="], []),
    ],
    ids=str,
)
def test_make_run_passes_its_variables_on(variables, options):
    last = make("--dry-run", "run", *variables).splitlines()[-1]
    assert last.split() == ["exec", ".venv/bin/coinwatch", "run", *options]


@pytest.mark.parametrize("path", [".venv/x", ".airflow/sandbox/env", "data/bitcoin_raw.csv", ".mypy_cache/x"])
def test_git_ignores_what_the_commands_write(path):
    subprocess.run(["git", "check-ignore", "--quiet", path], cwd=PROJECT_DIR, check=True)  # noqa: S607 - it is on the PATH
