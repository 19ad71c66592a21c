import signal
import socket
import subprocess
import sys

import pytest


def start(folder, *arguments):
    command = [sys.executable, "-m", "coinwatch.sandbox.server", "--data-dir", str(folder)]
    ports = ["--coingecko-port", "0", "--slack-port", "0", "--s3-port", "0"]
    return subprocess.Popen([*command, *ports, *arguments], stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_what_is_ready_and_ends_cleanly(tmp_path, number):
    with start(tmp_path) as server:
        said = [server.stderr.readline() for _ in range(4)]
        server.send_signal(number)
        assert server.wait(10) == 0
        server.stderr.close()
    assert said[0].startswith("sandbox: CoinGecko (simulated prices): http://127.0.0.1:")
    assert said[3] == "sandbox: the sandbox is ready\n"


def test_a_port_that_is_taken_and_a_file_that_cannot_be_read_are_one_clear_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with start(tmp_path, "--slack-port", port) as server:
            _, said = server.communicate(timeout=20)
    assert server.returncode == 2
    assert f"the sandbox cannot start: Slack: port {port} cannot be listened on (Address already in use)" in said
    assert "Traceback" not in said
    with start(tmp_path, "--prices", str(tmp_path / "none.csv")) as server:
        _, said = server.communicate(timeout=20)
    assert server.returncode == 2
    assert "No such file or directory" in said
