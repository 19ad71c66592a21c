"""What stops a run before anything starts."""

import os

import pytest

from coinwatch.errors import CoinwatchError, InvalidAction
from coinwatch.local.run import _only_one, run, sandbox_settings
from coinwatch.settings import load_settings


@pytest.fixture
def start(tmp_path, unused_port):
    """Start a run whose page has a port that the fixture holds: nothing can be started by mistake."""
    environ = {"COINWATCH_PORT": str(unused_port), "COINWATCH_SANDBOX_PORT": "65535"}

    def start(*, live=False, **settings):
        settings = load_settings(**{"data_dir": tmp_path / "data"} | settings)
        return run(settings, tmp_path / "airflow", environ, pytest.fail, live=live, once=True)

    return start


def test_the_sandbox_has_folders_and_a_bucket_of_its_own(tmp_path):
    settings = load_settings(
        data_dir=tmp_path, coins=("bitcoin", "solana"), s3_bucket="real", s3_prefix="p", bitcoin_raw_path="/real.csv"
    )
    sandbox = sandbox_settings(settings)
    assert sandbox == load_settings(data_dir=tmp_path / "sandbox", coins=settings.coins, s3_bucket="coinwatch-sandbox")


@pytest.mark.parametrize(("live", "home"), [(True, "live"), (False, "sandbox")])
def test_a_port_in_use_stops_it_and_simulated_and_real_runs_have_a_home_each(start, tmp_path, unused_port, live, home):
    with pytest.raises(InvalidAction) as error:
        start(live=live)
    lines = str(error.value).splitlines()
    assert lines[0] == f"port {unused_port} (Airflow's page) is in use"
    assert ("port 65536 (the sandbox's Slack) does not exist: 65535 is the last" in lines) is not live
    assert [path.name for path in (tmp_path / "airflow" / home).iterdir()] == ["run.lock"]


def test_a_second_run_of_the_same_home_is_refused(start, tmp_path):
    home = tmp_path / "airflow" / "sandbox"
    home.mkdir(parents=True)
    with _only_one(home), pytest.raises(InvalidAction, match=rf"another run uses {home} \(process {os.getpid()}\)"):
        start()


def test_a_folder_that_cannot_be_written_to_is_named(start, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        InvalidAction, match=rf"the folder {tmp_path}/file/sandbox cannot be written to: Not a directory"
    ):
        start(data_dir=tmp_path / "file")


def test_wrong_rules_stop_it(start, tmp_path):
    with pytest.raises(CoinwatchError, match=r"the rules file .*none\.yaml cannot be read"):
        start(config=tmp_path / "none.yaml")
