"""Whatever fails, at whatever log level: no key and no token is logged, sent, written or stored."""

import json
import logging
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from pydantic import SecretStr
from world import App

import coinwatch.app
from coinwatch.alerts.incidents import detect_anomalies
from coinwatch.errors import CoinwatchError
from coinwatch.health.checks import check_feed, deliver_waiting
from coinwatch.health.heartbeat import write_heartbeat
from coinwatch.health.task_failures import report_failure
from coinwatch.ingest.gaps import find_gaps
from coinwatch.ingest.history import fetch_history, plan_history
from coinwatch.ingest.poll import append_raw_log, fetch_prices
from coinwatch.sandbox.faults import KINDS, Fault
from coinwatch.sandbox.http import Response, SandboxServer
from coinwatch.slack.deliver import send_slack_alerts
from coinwatch.slack.webhook import open_webhook
from coinwatch.statistics.compute import compute_rolling_statistics
from coinwatch.times import format_time
from coinwatch.warehouse.load import load_raw_prices

SECRETS = {
    "API key": "CG-s3cr3tKEY",
    "token of the alerts' webhook": "xoAlertsS3cr3t",
    "token of the failures' webhook": "xoFailuresS3cr3t",
    "bot's token": "xoxb-b0tS3cr3t",
    "heartbeat URL": "p1ngS3cr3t",
}

SLACK_ANSWERS = [
    (200, "<html>log in</html>", {}),
    (400, "invalid_blocks", {}),
    (404, "no_service: POST /services/T/B/xoAlertsS3cr3t", {}),
    (410, "channel_is_archived", {}),
    (429, "rate_limited", {"Retry-After": "1"}),
    (429, "rate_limited", {"Retry-After": "600"}),
    (503, "", {}),
]


class Gone(SandboxServer):
    """Hangs up."""

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
    monkeypatch.setattr(coinwatch.app, "time", SimpleNamespace(sleep=lambda _: None))
    return world


def _slack(url, token):
    return {"conn_type": "slackwebhook", "host": url, "password": f"T/B/{token}"}


def run(world, heartbeat):
    """Run an hour of all Dags, step by step; a failure is logged as Airflow logs it, and its callback runs."""
    settings = world.settings.model_copy(update={"heartbeat_url": SecretStr(heartbeat)})
    names, chunks, now = [], [], world.clock.now

    def app():
        made = App(settings, world.clock)
        made.__dict__["slack"] = replace(made.slack, sleep=lambda _: None)
        return made

    steps = {
        "fetch_prices": lambda: names.extend(fetch_prices(app(), now)),
        "append_raw_log": lambda: append_raw_log(app(), names),
        "find_gaps": lambda: find_gaps(app(), now),
        "plan_history": lambda: chunks.extend(plan_history(app(), now, {})),
        "fetch_history": lambda: [fetch_history(app(), now, windows) for windows in chunks],
        "load_raw_prices": lambda: load_raw_prices(app()),
        "compute_rolling_statistics": lambda: compute_rolling_statistics(app()),
        "detect_anomalies": lambda: detect_anomalies(app(), "run"),
        "send_slack_alerts": lambda: send_slack_alerts(app()),
        "check_feed": lambda: check_feed(app()),
        "deliver_waiting": lambda: deliver_waiting(app()),
        "write_heartbeat": lambda: write_heartbeat(app()),
    }
    for task_id, step in steps.items():
        try:
            step()
        except CoinwatchError as failure:
            logging.getLogger("airflow.task").exception("Task failed with exception")
            task = SimpleNamespace(dag_id="a_dag", task_id=task_id, run_id="run", log_url=None)
            report_failure(app(), {"ti": task, "exception": failure})


def readable(world, caplog, capfd):
    """Return everything that can be read afterwards, by its place."""
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


def check_no_secret(world, caplog, capfd):
    places = dict(readable(world, caplog, capfd))
    assert len(places["log"]) > 1000
    found = [(place, name) for place, text in places.items() for name, secret in SECRETS.items() if secret in text]
    assert found == []


def test_no_fault_of_coingecko_reveals_a_secret(faulty, caplog, capfd, unused_port):
    caplog.set_level(logging.DEBUG)
    run(faulty, "")
    for kind in KINDS:
        faulty.clock.now += timedelta(hours=1)
        faulty.coingecko.faults[:] = [
            Fault(kind, path=path, seconds=0.1, retry_after=7) for path in ("simple/price", "market_chart")
        ]
        run(faulty, f"http://127.0.0.1:{unused_port}/p1ngS3cr3t")
    check_no_secret(faulty, caplog, capfd)


@pytest.mark.parametrize(("status", "body", "headers"), SLACK_ANSWERS)
def test_no_answer_of_slack_reveals_a_secret(faulty, caplog, capfd, unused_port, status, body, headers):
    caplog.set_level(logging.DEBUG)
    for _ in range(4):
        faulty.slack.answer_next(status, body, **headers)
    for _ in range(2):
        run(faulty, f"http://127.0.0.1:{unused_port}/p1ngS3cr3t")
        faulty.clock.now += timedelta(hours=1)
    check_no_secret(faulty, caplog, capfd)


@pytest.mark.parametrize("host", ["http://127.0.0.1:{unused_port}", "{gone}", "http://127.0.0.1/ü"])
def test_no_place_that_is_not_slack_reveals_a_secret(faulty, caplog, capfd, unused_port, monkeypatch, host):
    caplog.set_level(logging.DEBUG)
    token = SECRETS["token of the alerts' webhook"]
    with Gone() as gone:
        url = host.format(unused_port=unused_port, gone=gone.origin)
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_DEFAULT", json.dumps(_slack(url, token)))
        assert token in open_webhook("slack_default").client.url
        run(faulty, f"{gone.origin}/p1ngS3cr3t")
    check_no_secret(faulty, caplog, capfd)


def test_the_search_finds_secrets(faulty, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    run(faulty, "")
    logging.getLogger("x").debug("as of %s: %s", format_time(faulty.clock.now), SECRETS["API key"])
    (faulty.settings.data_dir / "note").write_text(SECRETS["heartbeat URL"])
    places = dict(readable(faulty, caplog, capfd))
    assert SECRETS["API key"] in places["log"]
    assert SECRETS["heartbeat URL"] in places[str(faulty.settings.data_dir / "note")]
