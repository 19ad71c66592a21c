"""Hours that do not go through; one that does is in `tests/end_to_end/test_make_run.py`."""

import json

import pytest

from coinwatch.errors import CoinwatchError
from coinwatch.local import first_hour
from coinwatch.local.first_hour import FirstHour
from coinwatch.status import CoinStatus, Status
from coinwatch.times import format_time


class Airflow:
    """A REST API in memory: the runs of each Dag and their tasks, in the form of Airflow's answers."""

    def __init__(self, noon):
        self.now = format_time(noon)
        self.errors, self.triggered, self.unpaused = {}, [], []
        self.states = {"ingest_prices": "success"}
        self.chunk = -1
        self.task = {"task_id": "fetch_prices", "state": "success", "duration": 1.25, "try_number": 1}

    def import_errors(self):
        return self.errors

    def dags(self):
        return {**dict.fromkeys(first_hour.FOLLOWED, False), "heal_history": True, "other": True}

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
        names = {"dag_id": dag_id, "dag_run_id": run_id, "map_index": self.chunk, "rendered_map_index": None}
        return [self.task | names | {"end_date": self.now}]


@pytest.fixture
def airflow(noon):
    return Airflow(noon)


@pytest.fixture
def said():
    return []


@pytest.fixture
def log(tmp_path):
    """The log of the second try of `fetch_prices`."""
    path = tmp_path / "dag_id=ingest_prices" / "run_id=r" / "task_id=fetch_prices" / "attempt=2.log"
    path.parent.mkdir(parents=True)
    return path


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
    assert airflow.unpaused == ["heal_history"]
    assert airflow.triggered == ["ingest_prices"]
    # Each task is reported once, however often it is looked at.
    assert said == [
        "Airflow is up",
        "ingest_prices is triggered",
        "ingest_prices 12:00:00 fetch_prices done (1.2 s)",
    ]


def test_a_long_history_comes_in_behind_the_first_hour(airflow, said, take_through):
    airflow.states |= {"ingest_prices": None, "heal_history": "running"}
    airflow.task |= {"task_id": "fetch_history", "state": "running"}
    airflow.chunk = 1
    take_through(status())
    assert said[2:] == ["heal_history has many hours to fetch: they come in behind the live ones"]


def test_work_that_no_run_does_is_started(airflow, take_through, monkeypatch):
    monkeypatch.setattr(first_hour, "OVERDUE", -1.0)
    take_through(status("10 bytes are unread"), status())
    assert airflow.triggered == ["ingest_prices", "process_prices"]


def test_a_run_that_failed_ends_it_with_the_last_exception_of_the_log(airflow, take_through, log):
    airflow.states["ingest_prices"] = "failed"
    airflow.task |= {"state": "failed", "try_number": 2}
    earlier = {"error_detail": [{"exc_type": "ValueError", "exc_value": "earlier"}]}
    # An exception and its cause.
    detail = [{"exc_type": "KeyRejected", "exc_value": "HTTP 401"}, {"exc_type": "OSError", "exc_value": "its cause"}]
    entries = [earlier, {"event": "failed", "error_detail": detail}, {"event": "ended", "level": "info"}]
    log.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    with pytest.raises(CoinwatchError) as error:
        take_through()
    assert str(error.value).splitlines() == [
        "the run r of ingest_prices failed",
        "task ingest_prices 12:00:00 fetch_prices, try 2:",
        "    KeyRejected: HTTP 401",
        f"  its log: {log}",
    ]


def test_a_try_that_is_repeated_later_is_printed_with_the_end_of_its_log(airflow, said, take_through, log):
    airflow.task |= {"state": "up_for_retry", "duration": None, "try_number": 2}
    log.write_text('{"event": "b", "level": "error"}\nno JSON\n[1]\n')
    take_through(status())
    assert said[2:] == [
        "ingest_prices 12:00:00 fetch_prices: try 2 failed, to be retried:",
        "    error b\n    no JSON\n    [1]",
    ]


def test_a_dag_file_that_cannot_be_imported_ends_it(airflow, take_through):
    airflow.errors = {"ingest_prices.py": "SyntaxError"}
    with pytest.raises(CoinwatchError, match=r"(?s)ingest_prices\.py.*SyntaxError"):
        take_through()
    assert airflow.triggered == []


def test_an_hour_without_a_price_did_not_go_through(take_through):
    with pytest.raises(CoinwatchError, match=r"no price of bitcoin as of 2026-11-22T12:00:00Z"):
        take_through(status(price=None))
