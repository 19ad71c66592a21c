import sys

import pytest

from coinwatch.compose import init as module
from coinwatch.compose.init import check_broker, run
from coinwatch.errors import CoinwatchError


def test_a_failed_command_shows_its_output(capsys):
    command = [sys.executable, "-c", "print('relation is missing'); raise SystemExit(3)"]
    with pytest.raises(CoinwatchError, match=r"could not migrate \(exit status 3\)"):
        run("migrate", command)
    assert capsys.readouterr().out == "  relation is missing\n"


@pytest.mark.parametrize(
    ("executor", "redis", "message"),
    [
        pytest.param("CeleryExecutor", False, "add --profile celery", id="no Redis"),
        pytest.param("LocalExecutor", True, "needs AIRFLOW__CORE__EXECUTOR=CeleryExecutor", id="no executor"),
        pytest.param("LocalExecutor", False, None, id="LocalExecutor"),
        pytest.param("CeleryExecutor", True, None, id="CeleryExecutor"),
    ],
)
def test_executor_and_profile_have_to_agree(monkeypatch, executor, redis, message):
    monkeypatch.setattr(module, "_answers", lambda *_: redis)
    environ = {"AIRFLOW__CORE__EXECUTOR": executor}
    if message is None:
        check_broker(environ)
    else:
        with pytest.raises(CoinwatchError, match=message):
            check_broker(environ)
