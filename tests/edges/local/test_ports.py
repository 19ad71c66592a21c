import os
import socket
import subprocess
import sys

import pytest

from coinwatch.local.errors import WrongInput
from coinwatch.local.ports import Port, check_ports, parse_port, read_port


@pytest.fixture
def taken_port():
    """A port on loopback that another process listens on, and the process."""
    program = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield int(process.stdout.readline()), process.pid
        process.stdin.close()


def test_free_ports_are_fine(unused_port):
    # `unused_port` is bound by the fixture; one that was bound a moment ago is free.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    assert number != unused_port
    check_ports([Port(number, "the page", "Choose another one")])


def test_a_taken_port_names_its_purpose_its_owner_and_the_remedy(taken_port):
    number, pid = taken_port
    with pytest.raises(WrongInput) as error:
        check_ports([Port(number, "the page", "Choose another one with X")])
    name = os.path.basename(os.path.realpath(sys.executable))  # noqa: PTH119 - as psutil has it
    assert str(error.value).startswith(f"port {number} (the page) is taken by process {pid} (")
    assert str(error.value).endswith("). Choose another one with X")
    assert name.startswith("python")


def test_a_port_that_is_needed_twice_or_does_not_exist_is_refused(taken_port):
    number, _ = taken_port
    with pytest.raises(WrongInput, match="is needed twice"):
        check_ports([Port(number, "the page", "."), Port(number, "Slack", ".")])
    with pytest.raises(WrongInput, match=r"port 65536 \(S3\) does not exist"):
        check_ports([Port(65536, "S3", "Choose another one")])


@pytest.mark.parametrize("text", ["", "80", "65536", "-8080", "8080.0", "eighty", "\u0668\u0660\u0668\u0660"])
def test_what_is_no_port_for_everybody_is_refused(text):
    with pytest.raises(ValueError, match="1024 to 65535"):
        parse_port(text)


def test_a_port_of_the_environment_has_a_default_and_a_clear_error():
    assert read_port({}, "COINWATCH_PORT", 8080) == 8080
    assert read_port({"COINWATCH_PORT": ""}, "COINWATCH_PORT", 8080) == 8080
    assert read_port({"COINWATCH_PORT": "8090"}, "COINWATCH_PORT", 8080) == 8090
    with pytest.raises(WrongInput) as error:
        read_port({"COINWATCH_PORT": "http"}, "COINWATCH_PORT", 8080)
    assert str(error.value) == "COINWATCH_PORT='http': a port from 1024 to 65535 is needed"
