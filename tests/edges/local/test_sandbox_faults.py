import pytest

from coinwatch.cli import main


@pytest.fixture
def fault(world, capsys):
    """`coinwatch fault …`, against the world's CoinGecko: exit status, and what was said on either output."""

    def fault(*arguments):
        status = main(["fault", *arguments, "--url", world.coingecko.origin])
        said = capsys.readouterr()
        return status, said.out + said.err

    return fault


def test_faults_are_switched_on_listed_and_switched_off_from_the_command_line(world, fault):
    assert fault() == (0, "no fault is switched on\n")
    status, said = fault("rate_limited", "--retry-after", "30", "--times", "2", "--path", "/simple/price")
    assert status == 0
    assert said.startswith("rate_limited: times=2 path=/simple/price retry_after=30")
    fault("price_times", "--coin", "ethereum", "--factor", "0.1")
    assert [(each.kind, each.times, each.coin, each.factor) for each in world.coingecko.faults] == [
        ("rate_limited", 2, "bitcoin", 10.0),
        ("price_times", None, "ethereum", 0.1),
    ]
    assert len(fault()[1].splitlines()) == 2
    assert fault("--clear") == (0, "no fault is switched on\n")
    assert world.coingecko.faults == []


def test_an_unknown_fault_is_answered_with_those_that_are_known(fault):
    status, said = fault("bad_luck")
    assert status == 2
    assert said.startswith("coinwatch: fault 'bad_luck' is not known; known are rate_limited, ")


def test_an_option_without_a_fault_is_refused(world, fault):
    assert fault("--times", "2") == (2, "coinwatch: times: of what? Name the fault\n")
    assert world.coingecko.faults == []


def test_where_no_sandbox_runs_it_says_how_to_start_one(unused_port, capsys):
    assert main(["fault", "--url", f"http://127.0.0.1:{unused_port}"]) == 1
    assert "start one with `make run` or `coinwatch sandbox`" in capsys.readouterr().err
