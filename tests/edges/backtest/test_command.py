"""`coinwatch backtest`, as people type it."""

import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from coinwatch.backtest.values import csv_values
from coinwatch.cli import main
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
    """Run the command: (arguments, …) → exit status and what was said."""

    def backtest(*arguments):
        status = main(["backtest", *map(str, arguments), "--picture", str(tmp_path / "picture.svg")])
        said = capsys.readouterr()
        return status, (said.out + said.err).splitlines()

    return backtest


def counts(lines):
    """The table: (rule, told) → numbers."""
    start = next(number for number, line in enumerate(lines) if line.startswith("rule "))
    rows = [line.split() for line in lines[start + 1 : lines.index("", start + 1)]]
    return {
        " ".join(word for word in row if word.isidentifier()): [int(word) for word in row if word.isdecimal()]
        for row in rows
    }


def test_it_tells_what_would_have_been_told_how_often_and_draws_it(backtest, prices, tmp_path):
    status, said = backtest("--csv", prices)
    assert status == 0
    assert said[0] == "bitcoin: 336 values from 2026-01-01 00:00 UTC to 2026-01-14 23:00 UTC"
    assert counts(said) == {
        "bad_value firing": [1],
        "bad_value resolved": [1],
        "move_1h firing": [1],
        "move_1h resolved": [1],
        "alerts": [2],
    }
    (alert,) = [line for line in said if line.startswith("  2026-01-11 00:00")]
    assert alert.startswith("  2026-01-11 00:00  critical  BTC −7.46 % in 1 h to $93.00: 15.6× a usual hour")
    picture = ET.fromstring((tmp_path / "picture.svg").read_text())  # noqa: S314 - it is our own
    marks = [element for element in picture.iter() if element.tag.endswith("circle")]
    assert [mark[0].text.split(": ")[1] for mark in marks] == ["2026-01-11 00:00 UTC", "2026-01-13 02:00 UTC"]


def test_only_the_days_that_are_asked_for_are_counted_and_the_others_teach(backtest, prices):
    _, said = backtest("--csv", prices, "--days", "3")
    assert said[1].startswith("counted: 2026-01-11 23:00 UTC on, 0.4 weeks")
    assert counts(said) == {
        "bad_value firing": [1],
        "bad_value resolved": [1],
        # The end of what began before is counted where it falls.
        "move_1h resolved": [1],
        "alerts": [1],
    }


def test_two_sets_of_rules_stand_side_by_side(backtest, prices):
    status, said = backtest("--csv", prices, "--set", "move_1h.sigmas=50", "--set", "limits.limit_24h_pct=5")
    assert status == 0
    assert counts(said) == {
        "bad_value firing": [1, 1],
        "bad_value resolved": [1, 1],
        "limit_24h firing": [0, 1],
        "limit_24h resolved": [0, 1],
        "move_1h firing": [1, 0],
        "move_1h resolved": [1, 0],
        "alerts": [2, 2],
    }


def test_what_is_stored_is_played_without_a_file(backtest, world, monkeypatch):
    world.run()
    monkeypatch.setenv("COINWATCH_DATA_DIR", str(world.settings.data_dir))
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    status, said = backtest()
    assert status == 0
    assert counts(said)["move_1h firing"] == [1]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        pytest.param(["--csv", "nowhere.csv"], 2, "nowhere.csv cannot be read: No such file", id="no file"),
        pytest.param(["--set", "sigmas"], 2, "the value: --set move_1h.sigmas=5", id="no value"),
        pytest.param(["--set", "move_1h.sigmas=-1"], 2, "rules.move_1h.sigmas is -1: Input should be", id="bad"),
        pytest.param(["--set", "move_9h.sigmas=5"], 2, "move_9h.sigmas is no value of the rules", id="unknown section"),
        pytest.param(["--set", "move_1h.sigma=5"], 2, "move_1h.sigma is not known; allowed are", id="unknown value"),
        pytest.param(["--coin", "ethereum", "--csv", "COINS"], 1, "there is no price of ethereum in usd", id="coin"),
    ],
)
def test_wrong_input_is_one_line(backtest, prices, tmp_path, arguments, status, message):
    (tmp_path / "coins.csv").write_text("timestamp,coin,price\n2026-01-01T00:00:00Z,bitcoin,1\n")
    arguments = [str(tmp_path / "coins.csv") if each == "COINS" else each for each in arguments]
    own = [] if "--csv" in arguments else ["--csv", prices]
    found, said = backtest(*own, *arguments)
    assert found == status
    assert message in said[-1]
    assert said[-1].startswith("coinwatch: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"timestamp,price\n2026-01-01T00:00:00Z,\xe9\n", "wrong.csv is no UTF-8 text", id="no UTF-8"),
        pytest.param(b"timestamp,price\n2026-01-01T00:00:00Z\n", "line 2: it has fewer fields", id="torn"),
        pytest.param(
            b'timestamp,price\n2026-01-01T00:00:00Z,"62,000"\n', "line 2: the price '62,000' is no number", id="comma"
        ),
        pytest.param(
            b"timestamp,price\n2026-01-01T00:00:00Z," + b"1" * 200_000, "line 1: field larger than", id="a huge field"
        ),
        pytest.param(b"time,price\n", "needs a header line with timestamp and price; it has time,price", id="header"),
        pytest.param(b"timestamp,price\nyesterday,1\n", "line 2: Invalid isoformat string: 'yesterday'", id="time"),
        pytest.param(b"timestamp,price\n2026-01-01,1\n", "line 2: time '2026-01-01' has no zone", id="zone"),
    ],
)
def test_a_file_that_is_not_understood_is_named_with_its_line(backtest, tmp_path, content, message):
    (tmp_path / "wrong.csv").write_bytes(content)
    status, said = backtest("--csv", tmp_path / "wrong.csv")
    assert status == 2
    assert message in said[-1]


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


def test_a_file_without_any_price_is_told_of_and_drawn_without_one(backtest, tmp_path):
    (tmp_path / "zero.csv").write_text("timestamp,price\n2026-01-01T00:00:00Z,0\n2026-01-01T01:00:00Z,\n")
    status, said = backtest("--csv", tmp_path / "zero.csv")
    assert status == 0
    assert counts(said) == {"bad_value firing": [1], "alerts": [1]}
    assert "bitcoin: no prices in this time" in (tmp_path / "picture.svg").read_text()


def test_days_are_a_number(capsys):
    with pytest.raises(SystemExit):
        main(["backtest", "--days", "few"])
    assert "'few': a number of days is needed" in capsys.readouterr().err
