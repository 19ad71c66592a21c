"""Whatever goes wrong, at whatever level is logged: no key and no token is told, written or stored."""

import json
import logging
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from pydantic import SecretStr

from coinwatch import connections
from coinwatch.errors import CoinwatchError
from coinwatch.health.checks import Watch
from coinwatch.health.task_failures import Failures, TaskRun
from coinwatch.sandbox.faults import KINDS, Fault
from coinwatch.sandbox.http import Response, SandboxServer
from coinwatch.slack.webhook import open_webhook
from coinwatch.times import format_time

SECRETS = {
    "API key": "CG-s3cr3tKEY",
    "token of the alerts' webhook": "xoAlertsS3cr3t",
    "token of the failures' webhook": "xoFailuresS3cr3t",
    "bot's token": "xoxb-b0tS3cr3t",
    "heartbeat URL": "p1ngS3cr3t",
}

SLACK_ANSWERS = [
    (200, "ok", {}),
    (200, "<html>log in</html>", {}),
    (400, "invalid_blocks", {}),
    (403, "invalid_token", {}),
    (404, "no_service: POST /services/T/B/xoAlertsS3cr3t", {}),
    (410, "channel_is_archived", {}),
    (429, "rate_limited", {"Retry-After": "1"}),
    (429, "rate_limited", {"Retry-After": "600"}),
    (500, "rollup_error", {}),
    (503, "", {}),
]


class Gone(SandboxServer):
    """Hangs up without a word."""

    def respond(self, _):
        return Response(200, b"", cut_after=-1)


@pytest.fixture
def faulty(world, monkeypatch):
    """The world with secrets in it, through Airflow's connections as the tasks have them."""
    by_id = {
        "coingecko_default": {"conn_type": "http", "host": world.coingecko.url, "password": SECRETS["API key"]},
        "slack_default": _slack(world.slack.url, SECRETS["token of the alerts' webhook"]),
        "slack_api_default": {
            "conn_type": "slack",
            "password": SECRETS["bot's token"],
            "extra": {"base_url": f"{world.slack.origin}/api/", "channel": "C0123456789"},
        },
        "slack_failures": _slack(world.slack.url, SECRETS["token of the failures' webhook"]),
    }
    for conn_id, connection in by_id.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))
    monkeypatch.setenv("COINWATCH_DATA_DIR", str(world.settings.data_dir))
    monkeypatch.setenv("COINWATCH_HISTORY_DAYS", "3")
    monkeypatch.setattr(connections, "utc_now", world.clock)
    monkeypatch.setattr(connections, "time", SimpleNamespace(sleep=lambda _: None))
    open_slack = connections.open_slack
    monkeypatch.setattr(connections, "open_slack", lambda: replace(open_slack(), sleep=lambda _: None))
    return world


def _slack(url, token):
    return {"conn_type": "slackwebhook", "host": url, "password": f"T/B/{token}"}


def run(world, heartbeat):
    """An hour of all Dags, each step on its own; what fails is told as Airflow would log it, and called back about."""
    now = world.clock.now
    handed = {"names": [], "windows": []}
    slack = connections.open_slack()
    settings = world.settings.model_copy(update={"heartbeat_url": SecretStr(heartbeat)})
    process = world.process()
    watch = Watch(settings, process.warehouse, process.rules, world.clock)
    failures = Failures(
        world.settings.data_dir / "failed_tasks",
        world.clock,
        connections.open_delivery,
        connections.open_slack,
        simulated=False,
    )

    ingest = connections.open_ingest
    steps = {
        "fetch_prices": lambda: handed.update(names=ingest().fetch_prices(now)),
        "append_raw_log": lambda: ingest().append_rows(handed["names"]),
        "find_gaps": lambda: handed.update(windows=ingest().history.find_gaps(now)),
        "fetch_history": lambda: [ingest().history.fetch_history(now, window) for window in handed["windows"]],
        "load_raw_prices": process.load_raw_prices,
        "compute_rolling_statistics": process.compute_rolling_statistics,
        "detect_anomalies": lambda: process.detect_anomalies("run"),
        "send_slack_alerts": lambda: process.send_slack_alerts(slack, "http://airflow", simulated=True),
        "check_feed": watch.check_feed,
        "deliver_waiting": lambda: watch.deliver_waiting(slack, "http://airflow", simulated=True),
        "write_heartbeat": watch.write_heartbeat,
    }
    for task_id, step in steps.items():
        task = TaskRun("a_dag", task_id, "", None)
        try:
            step()
        except CoinwatchError as failure:
            logging.getLogger("airflow.task").exception("Task failed with exception")
            failures.failed(task, failure)
        else:
            failures.recovered(task)


def told(world, caplog, capfd):
    """Everything that anybody could read afterwards, by where it is."""
    records = caplog.get_records("call")
    formatter = logging.Formatter()
    yield "log", "\n".join(f"{formatter.format(record)} {vars(record)}" for record in records)
    yield "screen", "".join(capfd.readouterr())
    yield "Slack", json.dumps(list(world.slack.messages))
    for table, rows in world.tables().items():
        yield f"table {table}", str(rows)
    for path in world.settings.data_dir.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes().decode(errors="replace")


def check_nothing_is_told(world, caplog, capfd):
    places = dict(told(world, caplog, capfd))
    assert len(places["log"]) > 1000
    found = [(place, name) for place, text in places.items() for name, secret in SECRETS.items() if secret in text]
    assert found == []


@pytest.mark.parametrize("kind", KINDS)
def test_no_fault_of_coingecko_makes_anything_tell_a_secret(faulty, caplog, capfd, unused_port, kind):
    caplog.set_level(logging.DEBUG)
    for path in ("", "market_chart"):
        faulty.coingecko.faults.append(Fault(kind, path=path, seconds=0.1, retry_after=7))
        run(faulty, f"http://127.0.0.1:{unused_port}/p1ngS3cr3t")
        faulty.clock.now += timedelta(hours=1)
    check_nothing_is_told(faulty, caplog, capfd)


@pytest.mark.parametrize(("status", "body", "headers"), SLACK_ANSWERS)
def test_no_answer_of_slack_makes_anything_tell_a_secret(faulty, caplog, capfd, unused_port, status, body, headers):
    caplog.set_level(logging.DEBUG)
    for _ in range(4):
        faulty.slack.answer_next(status, body, **headers)
    for _ in range(2):
        run(faulty, f"http://127.0.0.1:{unused_port}/p1ngS3cr3t")
        faulty.clock.now += timedelta(hours=1)
    check_nothing_is_told(faulty, caplog, capfd)


@pytest.mark.parametrize("host", ["nobody", "hangs up", "no URL"])
def test_no_place_that_is_not_slack_makes_anything_tell_a_secret(faulty, caplog, capfd, unused_port, monkeypatch, host):
    caplog.set_level(logging.DEBUG)
    with Gone() as gone:
        url = {"nobody": f"http://127.0.0.1:{unused_port}", "hangs up": gone.origin, "no URL": "http://127.0.0.1/ü"}[
            host
        ]
        monkeypatch.setenv(
            "AIRFLOW_CONN_SLACK_DEFAULT", json.dumps(_slack(url, SECRETS["token of the alerts' webhook"]))
        )
        assert SECRETS["token of the alerts' webhook"] in open_webhook("slack_default").client.url
        run(faulty, f"{gone.origin}/p1ngS3cr3t")
    check_nothing_is_told(faulty, caplog, capfd)


def test_the_search_finds_what_is_told(faulty, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    run(faulty, "")
    logging.getLogger("x").debug("as of %s: %s", format_time(faulty.clock.now), SECRETS["API key"])
    (faulty.settings.data_dir / "note").write_text(SECRETS["heartbeat URL"])
    places = dict(told(faulty, caplog, capfd))
    assert SECRETS["API key"] in places["log"]
    assert SECRETS["heartbeat URL"] in places[str(faulty.settings.data_dir / "note")]
