import signal
import socket
import subprocess
import sys

import psutil
import pytest

from coinwatch.sandbox.server import main


@pytest.fixture
def start(tmp_path):
    """Start the command with options."""

    def start(*options):
        command = [sys.executable, "-m", "coinwatch.sandbox.server", "--data-dir", str(tmp_path / "kept")]
        return subprocess.Popen([*command, "--port", "0", *options], stderr=subprocess.PIPE, text=True)

    return start


def test_it_logs_what_is_ready_listens_where_it_should_and_ends_cleanly(tmp_path, start):
    with start("--host", "127.0.0.2") as server:
        lines = [server.stderr.readline() for _ in range(5)]
        connections = psutil.Process(server.pid).net_connections()
        server.send_signal(signal.SIGTERM)
        assert server.wait(10) == 0
        server.stderr.close()
    assert lines[0].startswith("sandbox: CoinGecko (simulated prices): http://127.0.0.1:")
    assert lines[4] == "sandbox: the sandbox is ready\n"
    assert [each.laddr.ip for each in connections if each.status == "LISTEN"] == ["127.0.0.2"] * 3
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["market.json", "s3.db"]


def test_a_port_that_is_taken_is_one_clear_line(tmp_path, caplog):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["--data-dir", str(tmp_path), "--port", str(port)]) == 2
    assert f"CoinGecko: cannot listen on port {port} ([Errno 98] Address already in use)" in caplog.messages[-1]


def test_an_unreadable_price_file_is_one_clear_line(tmp_path, caplog):
    assert main(["--data-dir", str(tmp_path), "--prices", "none.csv"]) == 2
    assert "none.csv" in caplog.messages[-1]
