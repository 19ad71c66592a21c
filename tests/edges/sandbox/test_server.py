import signal
import socket
import subprocess
import sys

import psutil
import pytest


@pytest.fixture
def start(tmp_path):
    """Start the command with options."""

    def start(*options):
        command = [sys.executable, "-m", "coinwatch.sandbox.server", "--data-dir", str(tmp_path / "kept")]
        ports = ["--coingecko-port", "0", "--slack-port", "0", "--s3-port", "0"]
        return subprocess.Popen([*command, *ports, *options], stderr=subprocess.PIPE, text=True)

    return start


@pytest.mark.parametrize(
    ("number", "options", "host"),
    [(signal.SIGTERM, ("--host", "0.0.0.0"), "0.0.0.0"), (signal.SIGINT, (), "127.0.0.1")],  # noqa: S104 - the point
)
def test_it_logs_what_is_ready_listens_on_loopback_by_default_and_ends_cleanly(tmp_path, start, number, options, host):
    with start(*options) as server:
        lines = [server.stderr.readline() for _ in range(5)]
        connections = psutil.Process(server.pid).net_connections()
        server.send_signal(number)
        assert server.wait(10) == 0
        server.stderr.close()
    assert lines[0].startswith("sandbox: CoinGecko (simulated prices): http://127.0.0.1:")
    assert lines[4] == "sandbox: the sandbox is ready\n"
    assert [each.laddr.ip for each in connections if each.status == "LISTEN"] == [host] * 3
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["market.json", "s3.db"]


def test_a_port_that_is_taken_is_one_clear_line_and_nothing_is_left_running(start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with start("--s3-port", port) as server:
            _, output = server.communicate(timeout=60)
    assert server.returncode == 2
    (line,) = output.splitlines()
    assert all(word in line for word in ("S3", port, "--s3-port"))


def test_an_unreadable_price_file_is_one_clear_line(start):
    with start("--prices", "none.csv") as server:
        _, output = server.communicate(timeout=60)
    assert server.returncode == 2
    (line,) = output.splitlines()
    assert "none.csv" in line
