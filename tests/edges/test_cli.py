import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from coinwatch.cli import main

ENVIRON = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "include")}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        pytest.param([], "the following arguments are required: COMMAND", id="no command"),
        pytest.param(["run", "--limit", "0"], "argument --limit: '0': a number above 0", id="limit"),
        pytest.param(["backtest", "--days", "x"], "argument --days: 'x': a number above 0", id="days"),
        pytest.param(["sandbox", "--port", "x"], "argument --port: invalid int value: 'x'", id="sandbox"),
    ],
)
def test_wrong_arguments_are_named(capsys, arguments, problem):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert problem in capsys.readouterr().err


def test_a_wrong_setting_ends_with_status_2_and_without_a_traceback(capsys, monkeypatch):
    monkeypatch.setenv("COINWATCH_HISTORY_DAYS", "many")
    assert main(["backtest"]) == 2
    assert capsys.readouterr().err.startswith("coinwatch: COINWATCH_HISTORY_DAYS='many': ")


def test_the_status_is_printed_as_text_and_as_json(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COINWATCH_DATA_DIR", str(tmp_path))
    assert main(["status"]) == 0
    assert capsys.readouterr().out.startswith("bitcoin   no rows\n")
    assert main(["status", "--json", "--as-of", "2026-11-22T12:00:00Z"]) == 0
    assert [coin["rows"] for coin in json.loads(capsys.readouterr().out)["coins"]] == [0]


def test_an_output_that_nobody_reads_any_more_ends_the_command_without_a_traceback():
    program = (
        "from coinwatch.cli import _say\nfrom coinwatch.errors import Interrupted\ntry:\n    _say('one')\n"
        "except Interrupted as error:\n    _say('two')\n    raise SystemExit(error.exit_status) from None\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", program], env=ENVIRON, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_help_imports_nothing_heavy():
    show = (
        "import sys\nfrom coinwatch.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print({'airflow', 'pandas', 'numpy', 'boto3', 'requests', 'sqlalchemy', 'moto'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", show], env=ENVIRON, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
