import os
import subprocess
import sys
from pathlib import Path

import pytest

from coinwatch.cli import main

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        pytest.param([], "the following arguments are required: COMMAND", id="no command"),
        pytest.param(["run", "--port", "80"], "argument --port: '80': a port from 1024 to 65535", id="port"),
        pytest.param(["run", "--limit", "0"], "argument --limit: '0': minutes are needed", id="limit"),
        pytest.param(["load-airflow-settings"], "the following arguments are required: file", id="no file"),
    ],
)
def test_wrong_arguments_are_named(capsys, arguments, problem):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert problem in capsys.readouterr().err


def test_a_wrong_setting_ends_with_status_2_and_without_a_traceback(capsys, monkeypatch):
    monkeypatch.setenv("COINWATCH_HISTORY_DAYS", "1000")
    assert main(["run"]) == 2
    assert capsys.readouterr().err == (
        "coinwatch: COINWATCH_HISTORY_DAYS='1000': Input should be less than or equal to 365\n"
    )


def test_a_wrong_port_in_the_environment_ends_with_status_2(capsys, monkeypatch):
    monkeypatch.setenv("COINWATCH_PORT", "web")
    assert main(["run"]) == 2
    assert capsys.readouterr().err == "coinwatch: COINWATCH_PORT='web': a port from 1024 to 65535 is needed\n"


def test_a_missing_file_ends_with_status_2(capsys, tmp_path):
    assert main(["load-airflow-settings", str(tmp_path / "none.yaml")]) == 2
    assert capsys.readouterr().err == f"coinwatch: {tmp_path / 'none.yaml'} cannot be read: No such file or directory\n"


def test_the_sandboxs_options_are_passed_on(capsys):
    with pytest.raises(SystemExit) as error:
        main(["sandbox", "--s3-port", "none"])
    assert error.value.code == 2
    assert "argument --s3-port: invalid int value: 'none'" in capsys.readouterr().err


def test_an_output_that_nobody_reads_any_more_ends_the_command_without_a_traceback():
    program = (
        "from coinwatch.cli import _say\nfrom coinwatch.local.errors import Interrupted\ntry:\n    _say('one')\n"
        "except Interrupted as error:\n    _say('two')\n    raise SystemExit(error.status) from None\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    environ = {**os.environ, "PYTHONPATH": str(PROJECT / "include")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_help_imports_nothing_heavy():
    show = (
        "import sys\nfrom coinwatch.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print({'airflow', 'pandas', 'numpy', 'boto3', 'requests', 'sqlalchemy', 'moto'} & set(sys.modules))"
    )
    environ = {**os.environ, "PYTHONPATH": str(PROJECT / "include")}
    done = subprocess.run([sys.executable, "-c", show], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
