import socket
import subprocess
import sys

import pytest

from coinwatch.errors import InvalidAction
from coinwatch.local.ports import check_ports, read_port


@pytest.fixture
def listener():
    """Another process that listens on a port on loopback: (port, process id)."""
    program = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield int(process.stdout.readline()), process.pid
        process.stdin.close()


def test_each_port_that_cannot_be_used_has_a_line_with_purpose_and_reason(listener):
    port, pid = listener
    with pytest.raises(InvalidAction) as error:
        check_ports(port, port)
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"port {port} (Airflow's page) is in use by process {pid} (python")
    assert lines[1] == f"port {port} (the sandbox's CoinGecko) is needed twice"
    assert "COINWATCH_SANDBOX_PORT" in lines[-1]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    check_ports(free, None)
    with pytest.raises(InvalidAction, match=r"port 65536 \(the sandbox's Slack\) does not exist: 65535 is the last"):
        check_ports(free, 65535)


@pytest.mark.parametrize("text", ["80", "65536", "-8080", "8080.0", "eighty", "\u0668\u0660\u0668\u0660"])
def test_a_variable_without_a_port_is_named(text):
    with pytest.raises(InvalidAction) as error:
        read_port({"COINWATCH_PORT": text}, "COINWATCH_PORT", 8080)
    assert str(error.value) == f"COINWATCH_PORT={text!r}: a port from 1024 to 65535 is needed"


@pytest.mark.parametrize(("environ", "port"), [({}, 8080), ({"P": ""}, 8080), ({"P": "8090"}, 8090)])
def test_a_port_of_the_environment_has_a_default(environ, port):
    assert read_port(environ, "P", 8080) == port
