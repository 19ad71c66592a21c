"""What stops a run before anything starts."""

import os

import pytest

from coinwatch.errors import CoinwatchError, InvalidAction
from coinwatch.local.run import RunOptions, _only_one, run, sandbox_settings
from coinwatch.settings import load_settings


@pytest.fixture
def options(tmp_path, unused_port):
    """A run whose page has a port that the fixture holds: nothing can be started by mistake."""

    def make(**changes):
        values = {
            "settings": load_settings(data_dir=tmp_path / "data"),
            "home": tmp_path / "airflow",
            "port": unused_port,
            "sandbox_port": 65535,
        }
        return RunOptions(**(values | changes))

    return make


def test_the_sandbox_has_folders_and_a_bucket_of_its_own(tmp_path):
    settings = load_settings(
        data_dir=tmp_path, coins=("bitcoin", "solana"), s3_bucket="real", s3_prefix="p", bitcoin_raw_path="/real.csv"
    )
    sandbox = sandbox_settings(settings)
    assert sandbox == load_settings(data_dir=tmp_path / "sandbox", coins=settings.coins, s3_bucket="coinwatch-sandbox")
    assert sandbox.raw_path("bitcoin") == tmp_path / "sandbox" / "bitcoin_raw.csv"
    assert sandbox.archive_path == tmp_path / "sandbox" / "archive"


@pytest.mark.parametrize(("live", "home"), [(True, "live"), (False, "sandbox")])
def test_taken_ports_stop_it_and_simulated_and_real_runs_have_a_home_each(options, tmp_path, live, home):
    said = []
    with pytest.raises(InvalidAction) as error:
        run(options(live=live), {}, said.append)
    sandbox = [
        "port 65536 (the sandbox's Slack) does not exist: 65535 is the last",
        "port 65537 (the sandbox's S3) does not exist: 65535 is the last",
    ]
    lines = [f"port {options().port} (Airflow's page) is taken", *([] if live else sandbox)]
    assert [line for line in str(error.value).splitlines()[:-1] if "CoinGecko" not in line] == lines
    assert [path.name for path in (tmp_path / "airflow" / home).iterdir()] == ["run.lock"]
    assert said == []


def test_a_second_run_of_the_same_home_is_refused(options):
    home = options().home / "sandbox"
    home.mkdir(parents=True)
    with _only_one(home), pytest.raises(InvalidAction, match=rf"another run uses {home} \(process {os.getpid()}\)"):
        run(options(), {}, print)


def test_a_folder_that_cannot_be_written_to_is_named(options, tmp_path):
    (tmp_path / "file").touch()
    settings = load_settings(data_dir=tmp_path / "file")
    with pytest.raises(
        InvalidAction, match=rf"the folder {tmp_path}/file/sandbox cannot be written to: Not a directory"
    ):
        run(options(settings=settings), {}, print)


def test_wrong_rules_stop_it(options, tmp_path):
    with pytest.raises(CoinwatchError, match=r"the rules file .*none\.yaml cannot be read"):
        run(options(settings=load_settings(config=tmp_path / "none.yaml")), {}, print)
