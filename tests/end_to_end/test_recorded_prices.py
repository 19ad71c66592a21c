"""Real prices, recorded, through the real client and the whole pipeline, against a calculation made here."""

import csv
import json
import math
import statistics
from bisect import bisect_left, bisect_right
from datetime import timedelta
from decimal import Decimal

import pytest

from coinwatch.sandbox.market import RecordedMarket
from coinwatch.times import format_time, parse_time

HOUR = timedelta(hours=1)
DAY = timedelta(hours=24)


def read_rows(content):
    return list(csv.DictReader(content.decode().splitlines()))


def expected_statistics(points):
    """The definitions of the contract, section 5, in plain Python, over (time, price) ascending."""
    times = [t for t, _ in points]
    for number, (t, price) in enumerate(points):
        start = bisect_right(times, t - DAY)
        window = [p for _, p in points[start : number + 1]]

        def change(distance, tolerance, t=t, price=price, number=number):
            first, last = bisect_left(times, t - distance - tolerance), bisect_right(times, t - distance + tolerance)
            near = [(abs(t - distance - s), s, p) for s, p in points[first : min(last, number)]]
            return 100 * (price / min(near)[2] - 1) if near else None

        before = window[:-1]
        spread = statistics.stdev(before) if len(before) >= 12 else 0
        yield {
            "points_24h": len(window),
            "rolling_mean_24h": statistics.fmean(window),
            "rolling_std_24h": statistics.stdev(window) if len(window) > 1 else None,
            "zscore_24h": (price - statistics.fmean(before)) / spread if spread else None,
            "change_1h_pct": change(HOUR, HOUR / 2),
            "change_24h_pct": change(DAY, HOUR),
        }


def expected_sigmas(points):
    """DETECTION's one number of memory, in plain Python: the usual 1-hour move after each row, in percent."""
    variance, count, previous = 0.0, 0, None
    for t, price in points:
        if previous is not None:
            hours = max((t - previous[0]) / HOUR, 0.25)
            move = math.log(price / previous[1]) / math.sqrt(hours)
            if count >= 48:
                move = math.copysign(min(abs(move), 5 * math.sqrt(variance)), move)
            weight = max(1 - 0.5 ** (1 / 2160), 1 / (count + 1))
            variance += weight * (move * move - variance)
            count += 1
        previous = (t, price)
        yield 100 * math.sqrt(variance) if count else None


def check_processed(rows, points):
    assert [(parse_time(row["timestamp"]), Decimal(row["price"])) for row in rows] == points
    floats = [(t, float(price)) for t, price in points]
    for row, wanted, sigma in zip(rows, expected_statistics(floats), expected_sigmas(floats), strict=True):
        for name, value in [*wanted.items(), ("sigma_1h_pct", sigma)]:
            found = float(row[name]) if row[name] else None
            assert found == (None if value is None else pytest.approx(value, rel=1e-7, abs=1e-9)), (row, name)


def check_warehouse(world, rows):
    names = ("points_24h", "rolling_mean_24h", "rolling_std_24h", "zscore_24h", "change_1h_pct", "change_24h_pct")
    stored = world.rows("price_statistics", "ts", "price", *names, "sigma_1h_pct")
    assert [
        (format_time(ts), *("" if value is None else float(value) for value in values)) for ts, *values in stored
    ] == [
        (row["timestamp"], *(float(row[name]) if row[name] else "" for name in ("price", *names, "sigma_1h_pct")))
        for row in rows
    ]


def check_s3(world, raw, processed):
    for layer, rows in (("raw", raw), ("processed", processed)):
        uploaded = []
        for key, content in world.objects(f"{layer}/").items():
            date, hour = (part.partition("=")[2] for part in key.split("/")[1:3])
            of_hour = read_rows(content)
            assert {row["timestamp"][:13] for row in of_hour} == {f"{date}T{hour}"}
            uploaded += of_hour
        by_time = sorted(rows, key=lambda row: (row["timestamp"], row.get("source", "")))
        assert sorted(uploaded, key=lambda row: (row["timestamp"], row.get("source", ""))) == by_time


def test_17_weeks_of_polls_that_really_happened(make_world, recordings, clock):
    """Every poll at its own time; the second Dag runs after each at first, then only now and then, as events merge."""
    with (recordings / "coingecko_polled_2026.csv").open(newline="") as file:
        polls = sorted(
            (parse_time(row["timestamp_utc"]), row["current_price_usd"])
            for row in csv.DictReader(file)
            if row["symbol"] == "btc"
        )
    points = [(t, Decimal(price)) for t, price in polls]
    world = make_world(market=RecordedMarket("bitcoin", [(t, float(price)) for t, price in polls]))
    for number, (t, _) in enumerate(polls):
        clock.now = t
        for step in world.ingest_steps(t)[:2]:
            step()
        if number < 30 or number % 400 == 0 or number == len(polls) - 1:
            for step in world.process_steps():
                step()
    files = world.files()
    raw, processed = read_rows(files["bitcoin_raw.csv"]), read_rows(files["bitcoin_processed.csv"])
    assert [(parse_time(row["timestamp"]), Decimal(row["price"])) for row in raw] == points
    assert {row["source"] for row in raw} == {"live"}
    assert len(world.coingecko.requests) == len(polls)
    assert len(files["archive/manifest.jsonl"].splitlines()) == len(polls)
    check_processed(processed, points)
    check_warehouse(world, processed)
    check_s3(world, raw, processed)


def test_60_days_of_hours_that_really_happened_come_as_history(make_world, recordings, clock):
    """One live price and the hours before it, which the history endpoint has."""
    with (recordings / "btc_hourly_coinbase_2024.csv").open(newline="") as file:
        closes = {parse_time(row["timestamp_utc"]): row["close"] for row in csv.DictReader(file)}
    now = max(closes)
    clock.now = now
    world = make_world(
        market=RecordedMarket("bitcoin", [(t, float(price)) for t, price in closes.items()]), history_days=60
    )
    world.run()
    points = [(now - HOUR * number, Decimal(closes[now - HOUR * number])) for number in range(60 * 24, -1, -1)]
    files = world.files()
    raw, processed = read_rows(files["bitcoin_raw.csv"]), read_rows(files["bitcoin_processed.csv"])
    in_order = sorted(raw, key=lambda row: row["timestamp"])
    assert [(parse_time(row["timestamp"]), Decimal(row["price"])) for row in in_order] == points
    assert [row["source"] for row in in_order] == ["history"] * 60 * 24 + ["live"]
    check_processed(processed, points)
    check_warehouse(world, processed)
    check_s3(world, raw, processed)
    assert [json.loads(line)["status"] for line in files["archive/manifest.jsonl"].splitlines()] == [200, 200]
