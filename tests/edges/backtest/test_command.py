"""The command `coinwatch backtest`."""

import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from coinwatch.backtest.values import csv_values
from coinwatch.cli import main
from coinwatch.errors import InvalidAction
from coinwatch.quarantine.screening import Value
from coinwatch.times import format_time

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def prices(tmp_path):
    """Write a file of prices: ten quiet days, a fall of 7 % that stays, and an absurd value two days later."""
    points = [(hour, 100.5 if hour % 2 else 100.0) for hour in range(240)]
    points += [(240 + hour, 93.0 + 0.05 * (hour % 2)) for hour in range(96)]
    points[290] = (290, 930.0)
    lines = [f"{format_time(START + timedelta(hours=hour))},{price}" for hour, price in points]
    path = tmp_path / "prices.csv"
    path.write_text("\n".join(["timestamp,price", *lines]) + "\n")
    return path


@pytest.fixture
def backtest(capsys, tmp_path):
    """Run the command: (arguments, …) → exit status and the lines of its output."""

    def backtest(*arguments, chart="chart.svg"):
        status = main(["backtest", "--chart", str(tmp_path / chart), *map(str, arguments)])
        output = capsys.readouterr()
        return status, (output.out + output.err).splitlines()

    return backtest


def counts(lines):
    """Return the table: rule and state → numbers."""
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    return {" ".join(row[:2]).strip(): [int(cell.split()[0]) for cell in row[2:]] for row in cells}


def test_it_counts_lists_and_draws_the_alerts(backtest, prices, tmp_path):
    status, lines = backtest("--csv", prices)
    assert status == 0
    assert lines[0] == "bitcoin: 336 values from 2026-01-01 00:00 UTC to 2026-01-14 23:00 UTC"
    assert counts(lines) == {
        "bad_value firing": [1],
        "bad_value resolved": [1],
        "move_1h firing": [1],
        "move_1h resolved": [1],
        "alerts": [2],
    }
    listed = [line.split()[:3] for line in lines if line.startswith("  2026")]
    assert listed == [["2026-01-11", "00:00", "critical"], ["2026-01-13", "02:00", "warning"]]
    assert ET.fromstring((tmp_path / "chart.svg").read_text()).tag.endswith("svg")  # noqa: S314 - it is our own


def test_alerts_count_in_the_days_asked_for_and_older_values_teach(backtest, prices):
    _, lines = backtest("--csv", prices, "--days", "3")
    assert lines[1].startswith("alerts count from 2026-01-11 23:00 UTC on, 0.4 weeks")
    # An incident that was opened before is resolved in these days.
    assert counts(lines) == {
        "bad_value firing": [1],
        "bad_value resolved": [1],
        "move_1h resolved": [1],
        "alerts": [1],
    }


def test_two_sets_of_rules_are_compared_side_by_side(backtest, prices, tmp_path):
    changes = ("--set", "move_1h.sigmas=50", "--set", "limits.limit_24h_pct=5")
    status, lines = backtest("--csv", prices, *changes, chart="chart.PNG")
    assert status == 0
    assert (tmp_path / "chart.PNG").read_bytes().startswith(b"\x89PNG")
    assert counts(lines) == {
        "bad_value firing": [1, 1],
        "bad_value resolved": [1, 1],
        "limit_24h firing": [0, 1],
        "limit_24h resolved": [0, 1],
        "move_1h firing": [1, 0],
        "move_1h resolved": [1, 0],
        "alerts": [2, 2],
    }


def test_stored_prices_are_used_without_a_file(backtest, world, monkeypatch):
    world.run()
    monkeypatch.setenv("COINWATCH_DATA_DIR", str(world.settings.data_dir))
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    status, lines = backtest()
    assert status == 0
    assert counts(lines)["move_1h firing"] == [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--csv", "nowhere.csv"], "nowhere.csv cannot be read: No such file", id="no file"),
        pytest.param(["--set", "sigmas"], "a value: --set move_1h.sigmas=5", id="no value"),
        pytest.param(["--set", "move_1h.sigmas=-1"], "--set: rules.move_1h.sigmas is -1: Input should be", id="bad"),
        pytest.param(["--coin", "ethereum", "--csv", "COINS"], "no price of ethereum in usd", id="coin"),
        pytest.param(["--chart", "chart.pdf"], "--chart chart.pdf: the file has to end in .png or .svg", id="chart"),
    ],
)
def test_wrong_input_is_one_line(backtest, prices, tmp_path, arguments, message):
    (tmp_path / "coins.csv").write_text("timestamp,coin,price\n2026-01-01T00:00:00Z,bitcoin,1\n")
    arguments = [str(tmp_path / "coins.csv") if each == "COINS" else each for each in arguments]
    own = [] if "--csv" in arguments else ["--csv", prices]
    found, lines = backtest(*own, *arguments)
    assert found == 2
    assert message in lines[-1]
    assert lines[-1].startswith("coinwatch: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"2026-01-01T00:00:00Z,\xe9\n", "wrong.csv is not UTF-8 text", id="no UTF-8"),
        pytest.param(b"2026-01-01T00:00:00Z\n", "line 2: it has fewer fields", id="torn"),
        pytest.param(b'2026-01-01T00:00:00Z,"62,000"\n', "line 2: the price '62,000' is not a number", id="comma"),
        pytest.param(b"2026-01-01T00:00:00Z," + b"1" * 200_000, "line 1: field larger than", id="a huge field"),
        pytest.param(b"yesterday,1\n", "line 2: Invalid isoformat string: 'yesterday'", id="time"),
    ],
)
def test_an_unexpected_line_is_named(tmp_path, content, message):
    path = tmp_path / "wrong.csv"
    path.write_bytes(b"timestamp,price\n" + content)
    with pytest.raises(InvalidAction, match=message):
        csv_values(path, "bitcoin", "usd")
    path.write_bytes(b"time,price\n")
    with pytest.raises(InvalidAction, match="needs a header line with timestamp and price; it has time,price"):
        csv_values(path, "bitcoin", "usd")


def test_of_a_raw_log_the_coins_own_lines_count_and_a_live_one_before_history(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(
        "\ufefftimestamp,coin,currency,price,source\n"
        "2026-01-01T00:00:00Z,bitcoin,usd,100.0,live\n"
        "2026-01-01T00:00:00Z,bitcoin,usd,1,history\n"
        "2026-01-01T01:00:00Z,bitcoin,eur,2,live\n"
        "2026-01-01T01:00:00Z,ethereum,usd,3,live\n"
        "2026-01-01T02:00:00Z,bitcoin,usd,,live\n"
        "2026-01-01T01:00:00Z,bitcoin,usd,101.5,history\n"
        "2026-01-01T03:00:00Z,bitcoin,usd,0,live\n",
        encoding="utf-8",
    )
    assert csv_values(path, "bitcoin", "usd") == [
        Value(START, Decimal("100.0")),
        Value(START + timedelta(hours=1), Decimal("101.5")),
        Value(START + timedelta(hours=2), None),
        Value(START + timedelta(hours=3), None),
    ]


def test_a_file_without_any_price_has_an_empty_chart(backtest, tmp_path):
    (tmp_path / "zero.csv").write_text("timestamp,price\n2026-01-01T00:00:00Z,0\n2026-01-01T01:00:00Z,\n")
    status, lines = backtest("--csv", tmp_path / "zero.csv")
    assert status == 0
    assert counts(lines) == {"bad_value firing": [1], "alerts": [1]}
    assert "no prices" in (tmp_path / "chart.svg").read_text()
