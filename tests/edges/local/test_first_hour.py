import json
import re
from datetime import timedelta

import pytest

from coinwatch.local.api import AirflowApi
from coinwatch.local.errors import RunError
from coinwatch.local.first_hour import FirstHour
from coinwatch.local.home import AirflowHome
from coinwatch.local.processes import Processes, Signals
from coinwatch.local.report import CoinReport, Report
from coinwatch.sandbox.http import Response, SandboxServer, json_response
from coinwatch.times import format_time

HEALTHY = {name: {"status": "healthy"} for name in ("metadatabase", "scheduler", "triggerer", "dag_processor")}


class Airflow(SandboxServer):
    """An Airflow whose runs stand still until a test moves them: the answers of the real one, as far as they are read.

    Attributes:
        asked: What was asked.
        runs: By Dag, newest first.
        tasks: By run.
    """

    def __init__(self, password, noon):
        super().__init__(clock=lambda: noon)
        self.asked = []
        self.health = [503, {**HEALTHY, "scheduler": {"status": None}, "triggerer": None}, HEALTHY]
        self.errors = []
        self.dags = {"ingest_prices": False, "process_prices": False}
        self.runs = {"ingest_prices": [], "process_prices": []}
        self.tasks = {}
        self._password = password
        self._noon = noon

    def _handler(self):
        handler = super()._handler()
        handler.do_PATCH = handler.do_GET
        return handler

    def respond(self, request):
        self.asked.append(f"{request.method} {request.path}")
        parts = request.path.removeprefix("/api/v2").split("/")[1:]
        if parts == ["monitor", "health"]:
            state = self.health.pop(0) if len(self.health) > 1 else self.health[0]
            return Response(state, b"busy") if isinstance(state, int) else json_response(state)
        if parts == ["auth", "token"]:
            right = json.loads(request.body) == {"username": "admin", "password": self._password}
            return json_response({"access_token": "token"}, 201) if right else json_response({}, 401)
        assert request.headers["authorization"] == "Bearer token"
        return json_response(self._answer(request.method, parts, request.body))

    def _answer(self, method, parts, body):
        answer = {}
        match method, *parts:
            case "GET", "importErrors":
                answer["import_errors"] = self.errors
            case "GET", "dags":
                answer["dags"] = [{"dag_id": dag_id, "is_paused": paused} for dag_id, paused in self.dags.items()]
            case "PATCH", "dags", dag_id:
                self.dags[dag_id] = json.loads(body)["is_paused"]
            case "POST", "dags", dag_id, "dagRuns":
                assert json.loads(body) == {"logical_date": None}
                answer = self.add_run(dag_id, "success")
            case "GET", "dags", dag_id, "dagRuns":
                answer["dag_runs"] = self.runs[dag_id]
            case "GET", "dags", _, "dagRuns", run_id, "taskInstances":
                answer["task_instances"] = self.tasks.get(run_id, [])
            case _:
                raise AssertionError(f"nobody should ask {method} {parts}")
        return answer

    def add_run(self, dag_id, state, ended=None):
        run = {
            "dag_id": dag_id,
            "dag_run_id": f"run-{len(self.runs[dag_id])}-of-{dag_id}",
            "logical_date": None,
            "run_after": format_time(self._noon + timedelta(milliseconds=250)),
            "state": state,
            "end_date": format_time(ended or self._noon) if state in ("success", "failed") else None,
        }
        self.runs[dag_id].insert(0, run)
        return run


def task(run, task_id, state, **changes):
    return {
        "dag_id": run["dag_id"],
        "dag_run_id": run["dag_run_id"],
        "task_id": task_id,
        "map_index": -1,
        "rendered_map_index": None,
        "try_number": 1,
        "state": state,
        "duration": 1.25,
        "end_date": run["run_after"],
    } | changes


@pytest.fixture
def home(tmp_path):
    """Where the logs are."""
    home = AirflowHome(tmp_path / "home", tmp_path, 8080)
    home.prepare(None)
    return home


@pytest.fixture
def airflow(home, noon):
    """An Airflow that is about to be healthy."""
    with Airflow(home.password, noon) as airflow:
        yield airflow


@pytest.fixture
def said():
    """What the person at the terminal was told."""
    return []


@pytest.fixture
def first_hour(airflow, home, said, noon):
    """The first hour of that Airflow, with these reports one after the other."""

    def make(*reports, **changes):
        signals = Signals()
        left = list(reports)
        values = {
            "api": AirflowApi(airflow.origin, home.password),
            "home": home,
            "signals": signals,
            "processes": Processes(signals),
            "say": said.append,
            "read_report": lambda as_of: left.pop(0).model_copy(update={"as_of": as_of}),
            "since": noon - timedelta(minutes=1),
            "limit": 20,
            "interval": 0.001,
            "overdue": 0,
        }
        return FirstHour(**(values | changes))

    return make


def report(noon, price=1.0, left=()):
    coin = CoinReport(coin="bitcoin", currency="usd", rows=1, price=price)
    return Report(as_of=noon, coins=[coin], alerts=[], objects={}, left=list(left))


def test_the_hour_is_triggered_once_airflow_is_healthy_and_followed_to_its_end(airflow, first_hour, said, noon):
    old = airflow.add_run("ingest_prices", "failed", ended=noon - timedelta(hours=1))
    airflow.tasks[old["dag_run_id"]] = [task(old, "fetch_prices", "failed")]
    process = airflow.add_run("process_prices", "success")
    airflow.tasks["run-1-of-ingest_prices"] = [
        task(
            {**process, "dag_id": "ingest_prices"},
            "fetch_history",
            "success",
            map_index=0,
            rendered_map_index="bitcoin",
        ),
        task({**process, "dag_id": "ingest_prices"}, "append_history", "skipped"),
    ]
    airflow.tasks[process["dag_run_id"]] = [task(process, "load_raw_prices", "success")]
    assert first_hour(report(noon)).take_through() == report(noon)
    assert said == [
        "Airflow is up",
        "ingest_prices is triggered",
        "ingest_prices 12:00:00 fetch_history[bitcoin] done (1.2 s)",
        "ingest_prices 12:00:00 append_history skipped",
        "process_prices 12:00:00 load_raw_prices done (1.2 s)",
    ]
    assert airflow.asked.count("POST /api/v2/dags/ingest_prices/dagRuns") == 1


def test_dags_that_are_paused_are_switched_on_and_one_that_is_not_there_yet_is_waited_for(
    airflow, first_hour, said, noon
):
    airflow.dags = {"process_prices": True}
    look = AirflowApi.dags

    class SlowApi(AirflowApi):
        def dags(self):
            known = look(self)
            airflow.dags["ingest_prices"] = False
            return known

    first_hour(report(noon), api=SlowApi(airflow.origin, airflow._password)).take_through()
    assert airflow.dags == {"ingest_prices": False, "process_prices": False}
    assert said[:2] == ["Airflow is up", "process_prices was paused, and is switched on"]


def test_what_an_event_should_have_started_is_started_by_hand(airflow, first_hour, said, noon):
    assert first_hour(report(noon, left=["9 bytes are unread"]), report(noon)).take_through() == report(noon)
    assert airflow.asked.count("POST /api/v2/dags/process_prices/dagRuns") == 1
    assert said[-1] == "process_prices is started by hand, because there is work left: 9 bytes are unread"


def test_a_dag_file_that_cannot_be_read_is_told_with_its_traceback(airflow, first_hour, noon):
    airflow.errors = [{"filename": "ingest_prices.py", "stack_trace": "Traceback:\nSyntaxError: line 1"}]
    with pytest.raises(RunError) as error:
        first_hour(report(noon)).take_through()
    assert str(error.value) == (
        "Airflow cannot read these Dag files:\ningest_prices.py:\n    Traceback:\n    SyntaxError: line 1"
    )


def write_log(home, run, task_id, reason, try_number=1):
    path = home.task_log(run["dag_id"], run["dag_run_id"], task_id, -1, try_number)
    path.parent.mkdir(parents=True, exist_ok=True)
    detail = [{"exc_type": "CoinGeckoError", "exc_value": reason}]
    path.write_text(json.dumps({"event": "failed", "level": "error", "error_detail": detail}))
    return path


def test_a_failed_task_is_named_with_the_reason_and_its_log(airflow, first_hour, home, noon):
    run = airflow.add_run("process_prices", "failed")
    airflow.tasks[run["dag_run_id"]] = [
        task(run, "load_raw_prices", "failed", try_number=5),
        task(run, "detect_anomalies", "upstream_failed"),
    ]
    log = write_log(home, run, "load_raw_prices", "nobody answers", try_number=5)
    with pytest.raises(RunError) as error:
        first_hour(report(noon)).take_through()
    assert str(error.value) == (
        "the run run-0-of-process_prices of process_prices failed\n"
        "task process_prices 12:00:00 load_raw_prices, try 5:\n"
        "    CoinGeckoError: nobody answers\n"
        f"  its whole log: {log}"
    )


def test_a_task_that_is_tried_again_is_told_once_with_the_reason_and_the_limit_says_what_is_waited_for(
    airflow, first_hour, home, said, noon
):
    run = airflow.add_run("process_prices", "running")
    airflow.tasks[run["dag_run_id"]] = [task(run, "upload_to_s3", "up_for_retry")]
    write_log(home, run, "upload_to_s3", "S3 is away")
    with pytest.raises(
        RunError, match=r"gave up after 0 minutes of waiting for ingest_prices and process_prices to end"
    ):
        first_hour(report(noon), limit=0.5).take_through()
    assert said[2:] == [
        "process_prices 12:00:00 upload_to_s3 failed at try 1 and is tried again later. The reason:",
        "    CoinGeckoError: S3 is away",
    ]


def test_a_coin_without_a_price_is_a_failure(first_hour, noon):
    with pytest.raises(RunError, match=re.escape("the warehouse has no price of bitcoin as of 2026-11-22T12:00:00Z")):
        first_hour(report(noon, price=None)).take_through()


def test_an_airflow_that_never_answers_is_given_up(home, first_hour, unused_port, noon):
    api = AirflowApi(f"http://127.0.0.1:{unused_port}", home.password)
    with pytest.raises(
        RunError, match=r"waiting for Airflow to answer \(GET /api/v2/monitor/health: ConnectionError\)"
    ):
        first_hour(report(noon), api=api, limit=0.05).take_through()


def test_a_wrong_password_is_told(airflow, first_hour, noon):
    with pytest.raises(RunError, match="Airflow answered 401 to POST /auth/token"):
        first_hour(report(noon), api=AirflowApi(airflow.origin, "wrong")).take_through()
