"""Hours that do not go through; one that does is in `tests/end_to_end/test_make_run.py`."""

import json

import pytest

from coinwatch.errors import CoinwatchError
from coinwatch.local import first_hour
from coinwatch.local.first_hour import FirstHour, failure_in_log
from coinwatch.status import CoinStatus, Status
from coinwatch.times import format_time


class Airflow:
    """A REST API in memory: the runs of each Dag and their tasks, in the form of Airflow's answers."""

    def __init__(self, noon):
        self.now = format_time(noon)
        self.errors, self.triggered, self.unpaused = {}, [], []
        self.states = {"ingest_prices": "success"}
        self.task = {"task_id": "fetch_prices", "state": "success", "duration": 1.25, "try_number": 1}

    def add_pool(self, pool):
        assert pool["name"] == "coingecko"

    def import_errors(self):
        return self.errors

    def dags(self):
        return {*first_hour.FOLLOWED, "other"}

    def unpause(self, dag_id):
        self.unpaused.append(dag_id)

    def trigger(self, dag_id):
        self.triggered.append(dag_id)
        return {"run_after": self.now}

    def latest_runs(self, dag_id):
        dates = {"logical_date": None, "run_after": self.now, "end_date": self.now}
        run = {"dag_id": dag_id, "dag_run_id": "r", "state": self.states.get(dag_id), **dates}
        return [run] if run["state"] else []

    def tasks(self, dag_id, run_id):
        names = {"dag_id": dag_id, "dag_run_id": run_id, "map_index": -1, "rendered_map_index": None}
        return [self.task | names | {"end_date": self.now}]


@pytest.fixture
def airflow(noon):
    return Airflow(noon)


@pytest.fixture
def said():
    return []


@pytest.fixture
def take_through(airflow, said, tmp_path):
    """Take an hour through whose statuses are given, one for each time that it is idle."""

    def take(*statuses):
        left = list(statuses)
        return FirstHour(airflow, tmp_path, lambda _: None, said.append, lambda _: left.pop(0)).take_through()

    return take


def status(*left, price=101.5):
    coin = CoinStatus(coin="bitcoin", currency="usd", rows=1, price=price)
    return Status.model_construct(coins=[coin], left=list(left))


def test_an_hour_is_through_when_nothing_is_left(airflow, said, take_through):
    done = status()
    assert take_through(status("10 bytes are unread"), done) is done
    assert airflow.unpaused == ["ingest_prices", "heal_history", "process_prices"]
    assert airflow.triggered == ["ingest_prices"]
    # Each task is reported once, however often it is looked at.
    assert said == [
        "Airflow is up",
        "ingest_prices is triggered",
        "ingest_prices 12:00:00 fetch_prices done (1.2 s)",
    ]


def test_work_that_no_run_does_is_started(airflow, take_through, monkeypatch):
    monkeypatch.setattr(first_hour, "OVERDUE", -1.0)
    take_through(status("10 bytes are unread"), status())
    assert airflow.triggered == ["ingest_prices", "process_prices"]


def test_a_run_that_failed_ends_it_with_the_reason_and_the_log(airflow, take_through, tmp_path):
    airflow.states["ingest_prices"] = "failed"
    airflow.task |= {"state": "failed", "try_number": 2}
    log = tmp_path / "dag_id=ingest_prices" / "run_id=r" / "task_id=fetch_prices" / "attempt=2.log"
    write(log, {"error_detail": [{"exc_type": "KeyRejected", "exc_value": "HTTP 401"}]})
    with pytest.raises(CoinwatchError) as error:
        take_through()
    assert "    KeyRejected: HTTP 401\n" in str(error.value)
    assert str(log) in str(error.value)


def test_a_try_that_is_repeated_later_is_printed_with_the_reason(airflow, said, take_through):
    airflow.task |= {"state": "up_for_retry", "duration": None}
    take_through(status())
    assert len([line for line in said if "fetch_prices: try 1 failed" in line]) == 1


def test_a_dag_file_that_cannot_be_imported_ends_it(airflow, take_through):
    airflow.errors = {"ingest_prices.py": "SyntaxError"}
    with pytest.raises(CoinwatchError, match=r"(?s)ingest_prices\.py.*SyntaxError"):
        take_through()
    assert airflow.triggered == []


def test_an_hour_without_a_price_did_not_go_through(take_through):
    with pytest.raises(CoinwatchError, match=r"no price of bitcoin as of 2026-11-22T12:00:00Z"):
        take_through(status(price=None))


def write(path, *entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{entry if isinstance(entry, str) else json.dumps(entry)}\n" for entry in entries))
    return path


def test_the_reason_in_a_log_is_its_last_exception(tmp_path):
    detail = [
        {"exc_type": "CoinGeckoError", "exc_value": "no answer", "frames": []},
        {"exc_type": "OSError", "exc_value": "its cause", "frames": []},
    ]
    path = write(
        tmp_path / "attempt=1.log",
        {"event": "x", "level": "warning", "error_detail": [{"exc_type": "ValueError", "exc_value": "earlier"}]},
        {"event": "Task failed with exception", "level": "error", "error_detail": detail},
        {"event": "ended", "level": "info"},
    )
    assert failure_in_log(path) == "CoinGeckoError: no answer"


def test_without_an_exception_it_is_the_end_of_the_log(tmp_path):
    assert failure_in_log(write(tmp_path / "log", {"event": "b", "level": "error"}, "no JSON", "[1]")) == (
        "error b\nno JSON\n[1]"
    )
    assert failure_in_log(tmp_path / "none") == f"(there is no log {tmp_path / 'none'})"
