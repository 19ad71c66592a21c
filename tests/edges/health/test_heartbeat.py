import json
import logging
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import insert

from coinwatch.health.checks import deliver_waiting
from coinwatch.health.heartbeat import write_heartbeat
from coinwatch.sandbox.http import Response, SandboxServer
from coinwatch.warehouse import schema

HOUR = timedelta(hours=1)


class Monitor(SandboxServer):
    """A dead man's switch that answers with a status."""

    def __init__(self, status=200):
        super().__init__()
        self.calls = []
        self.status = status

    def respond(self, request):
        self.calls.append((request.method, request.path))
        return Response(self.status, b"OK")


@pytest.fixture
def beat(world):
    """Write the heartbeat with a URL and other settings."""

    def beat(url="", **settings):
        update = {"heartbeat_url": SecretStr(url), **settings}
        return write_heartbeat(world.app(settings=world.settings.model_copy(update=update)))

    return beat


@pytest.fixture
def warehouse(world):
    return world.warehouse()


def test_the_file_says_how_things_stand(world, warehouse, beat, report, noon):
    price = {"coin": "bitcoin", "currency": "usd", "ts": noon, "price": 1, "source": "live", "snapshot": "s"}
    with warehouse.begin() as connection:
        connection.execute(insert(schema.prices), [price])
    report()
    world.clock.now = noon + HOUR
    path = world.settings.data_dir / "heartbeat.json"
    assert beat(coins=("bitcoin", "ethereum")) == f"{path} written"
    assert json.loads(path.read_bytes()) == {
        "at": "2026-11-22T13:00:00Z",
        "ok": False,
        "issues": [{"key": "uploads", "title": "t", "detail": "d", "since": "2026-11-22T12:00:00Z"}],
        "unnotified_issues": 1,
        "undelivered_alerts": 0,
        "newest_price": {"bitcoin": "2026-11-22T12:00:00Z", "ethereum": None},
    }


def test_the_url_is_called_and_never_shown(beat, caplog, capfd, unused_port):
    caplog.set_level(logging.DEBUG)
    with Monitor() as monitor, Monitor(503) as broken:
        done = [
            beat(f"{origin}/s3cr3t") for origin in (monitor.origin, broken.origin, f"http://127.0.0.1:{unused_port}")
        ]
    assert monitor.calls == [("GET", "/s3cr3t")]
    assert [outcome.partition("written, ")[2] for outcome in done] == [
        "URL called (HTTP 200)",
        "URL call failed (HTTPError 503)",
        "URL call failed (URLError)",
    ]
    assert "s3cr3t" not in str(done) + caplog.text + "".join(capfd.readouterr())


def test_while_operators_are_not_notified_of_an_issue_the_url_is_not_called(world, beat, report, noon):
    report()
    with Monitor() as monitor:
        for minutes in (59, 60):
            world.clock.now = noon + timedelta(minutes=minutes)
            beat(f"{monitor.origin}/ping")
            assert len(monitor.calls) == 1
        deliver_waiting(world.app())
        beat(f"{monitor.origin}/ping")
        assert len(monitor.calls) == 2
