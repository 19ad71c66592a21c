import signal
import socket
import subprocess
import sys

import psutil
import pytest
import requests

from coinwatch.sandbox.http import CannotListen
from coinwatch.sandbox.market import RecordedMarket
from coinwatch.sandbox.server import Ports, start_sandbox


def start(folder, *arguments):
    command = [sys.executable, "-m", "coinwatch.sandbox.server", "--data-dir", str(folder)]
    ports = ["--coingecko-port", "0", "--slack-port", "0", "--s3-port", "0"]
    return subprocess.Popen([*command, *ports, *arguments], stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_what_is_ready_and_ends_cleanly(tmp_path, number):
    with start(tmp_path) as server:
        said = [server.stderr.readline() for _ in range(5)]
        server.send_signal(number)
        assert server.wait(10) == 0
        server.stderr.close()
    assert said[0].startswith("sandbox: CoinGecko (simulated prices): http://127.0.0.1:")
    assert said[4] == "sandbox: the sandbox is ready\n"


@pytest.mark.parametrize(("arguments", "host"), [((), "127.0.0.1"), (("--host", "0.0.0.0"), "0.0.0.0")])  # noqa: S104 - the point
def test_others_than_this_machine_are_answered_only_on_request(tmp_path, arguments, host):
    with start(tmp_path, *arguments) as server:
        for _ in range(5):
            server.stderr.readline()
        listening = {
            socket.laddr.ip for socket in psutil.Process(server.pid).net_connections() if socket.status == "LISTEN"
        }
        server.terminate()
        server.wait(10)
        server.stderr.close()
    assert listening == {host}


@pytest.mark.parametrize("service", ["CoinGecko", "Slack", "S3"])
def test_a_port_that_is_taken_is_one_clear_line_and_nothing_is_left_running(tmp_path, service):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        option = f"--{service.lower()}-port"
        with start(tmp_path, option, port) as server:
            _, said = server.communicate(timeout=20)
    assert server.returncode == 2
    (line,) = said.splitlines()
    assert all(word in line for word in (service, port, option))


def test_an_unreadable_price_file_is_one_clear_line(tmp_path):
    path = tmp_path / "none.csv"
    with start(tmp_path, "--prices", str(path)) as server:
        _, said = server.communicate(timeout=20)
    assert server.returncode == 2
    (line,) = said.splitlines()
    assert str(path) in line


def test_all_services_can_be_started_by_a_test_and_end_with_it(tmp_path, clock):
    market = RecordedMarket("bitcoin", [(clock.now, 5.0)])
    with start_sandbox(market, clock=clock, bucket="prices", folder=tmp_path) as sandbox:
        urls = [sandbox.coingecko.origin, sandbox.slack.origin, sandbox.s3.url]
        quotes = requests.get(
            f"{sandbox.coingecko.url}/simple/price", params={"ids": "bitcoin", "vs_currencies": "usd"}, timeout=5
        )
        assert quotes.json() == {"bitcoin": {"usd": 5.0}}
        assert requests.post(f"{sandbox.slack.url}/T/B/x", json={"text": "hello"}, timeout=5).text == "ok"
        assert requests.put(f"{sandbox.s3.url}/prices/x", data=b"1", timeout=5).status_code == 200
    for url in urls:
        with pytest.raises(requests.ConnectionError):
            requests.get(url, timeout=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".slack.jsonl.lock", "s3.db", "slack.jsonl"]


def test_a_port_beyond_the_last_one_is_refused(clock):
    market = RecordedMarket("bitcoin", [(clock.now, 5.0)])
    with (
        pytest.raises(CannotListen, match=r"^S3: .*70000"),
        start_sandbox(market, clock=clock, ports=Ports(s3=70_000)),
    ):
        pass
