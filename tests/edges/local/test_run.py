from datetime import UTC, datetime
from pathlib import Path

import pytest

from coinwatch.local.errors import WrongInput
from coinwatch.local.ports import Port
from coinwatch.local.processes import only_one
from coinwatch.local.run import RunOptions, run, sandbox_settings
from coinwatch.settings import SettingsError, load_settings

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture
def options(tmp_path, unused_port):
    """A run whose page has a port of its own, which the fixture holds: nothing can be started by mistake."""

    def make(**changes):
        values = {
            "project": PROJECT,
            "home": tmp_path / "airflow",
            "settings": load_settings(data_dir=tmp_path / "data"),
            "environ": {},
            "clock": lambda: datetime.now(UTC),
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


def test_what_is_simulated_and_what_is_real_have_a_home_each(options, tmp_path):
    assert options().airflow_home == tmp_path / "airflow" / "sandbox"
    assert options(live=True).airflow_home == tmp_path / "airflow" / "live"


def test_a_live_run_needs_the_pages_port_only(options):
    page = Port(
        8090, "Airflow's page", "Choose another one with COINWATCH_PORT, for example COINWATCH_PORT=8090 make run"
    )
    assert options(live=True, port=8090).ports() == [page]
    assert [port.number for port in options(port=8090, sandbox_port=9000).ports()] == [8090, 9000, 9001, 9002]


def test_taken_ports_are_told_before_anything_starts(options):
    said = []
    with pytest.raises(WrongInput) as error:
        run(options(), said.append)
    other = "Choose three others with COINWATCH_SANDBOX_PORT=8481 (the first of them)"
    page = "Choose another one with COINWATCH_PORT, for example COINWATCH_PORT=8090 make run"
    assert str(error.value).splitlines() == [
        f"port 65536 (the sandbox's Slack) does not exist: 65535 is the last. {other}",
        f"port 65537 (the sandbox's S3) does not exist: 65535 is the last. {other}",
        f"port {options().port} (Airflow's page) is taken. {page}",
    ]
    assert said == []


def test_a_second_run_of_the_same_folder_is_refused(options):
    options().airflow_home.mkdir(parents=True)
    with only_one(options().airflow_home), pytest.raises(WrongInput, match="a run is using"):
        run(options(), print)


def test_a_folder_that_cannot_be_written_to_is_named(options, tmp_path):
    (tmp_path / "file").touch()
    settings = load_settings(data_dir=tmp_path / "file")
    with pytest.raises(WrongInput, match=rf"the folder {tmp_path}/file/sandbox cannot be written to: Not a directory"):
        run(options(settings=settings), print)


def test_wrong_rules_and_a_wrong_settings_file_are_told_before_anything_starts(options, tmp_path):
    with pytest.raises(SettingsError, match=r"the rules file .*none\.yaml cannot be read"):
        run(options(settings=load_settings(config=tmp_path / "none.yaml")), print)
    with pytest.raises(WrongInput, match=r"airflow_settings\.yaml cannot be read"):
        run(options(project=tmp_path), print)
