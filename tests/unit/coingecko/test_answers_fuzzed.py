"""Whatever CoinGecko sends becomes valid rows or an error of a known class.

The environment variable TEST_EXAMPLES sets the number of cases, 500 by default.
"""

import json
import logging
import os
import string
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from coinwatch.archive.snapshots import Answer
from coinwatch.coingecko.answers import read_history, read_quotes
from coinwatch.coingecko.response_errors import CoinGeckoError
from coinwatch.errors import CoinwatchError
from coinwatch.ingest.poll import append_raw_log, fetch_prices
from coinwatch.record import RAW_COLUMNS, format_raw_prices, parse_raw_prices
from coinwatch.sandbox.faults import ERRORS
from coinwatch.sandbox.http import Response, SandboxServer
from coinwatch.tasks import ErrorRetryPolicy
from coinwatch.times import hours_between, parse_time

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
COINS = ("bitcoin", "ethereum")

QUOTES = (
    b'{"bitcoin":{"usd":76975.123456789,"usd_market_cap":1.5422e+12,"usd_24h_vol":29096603418.8,'
    b'"usd_24h_change":-1.4093,"last_updated_at":1779092258},"ethereum":{"usd":2411.5,"usd_24h_change":null}}'
)
CHART = json.dumps(
    {
        kind: [[int((NOON - timedelta(hours=n)).timestamp() * 1000) + 41331, 77953.8 + n] for n in range(5, 0, -1)]
        for kind in ("prices", "market_caps", "total_volumes")
    }
).encode()

LITERALS = "0 -0 -1 1e400 -1e400 1e-400 1e999999999 1e99999999999999999999 1E+5 6.44e-06 NaN Infinity -Infinity"
NUMBERS = st.one_of(
    st.sampled_from(LITERALS.split()),
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(1, 400).map(lambda length: "7" * length),
)
SCALARS = st.one_of(
    NUMBERS, st.sampled_from(["null", "true", "false", '""', "[]", "{}"]), st.text(max_size=8).map(json.dumps)
)
FIELDS = "usd usd_market_cap usd_24h_vol usd_24h_change last_updated_at error status error_code error_message"
NAMES = st.sampled_from(FIELDS.split())


def written(pairs):
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in pairs) + "}"


def values(names):
    """JSON texts; numbers as they are, which a JSON library would not write."""
    return st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]"),
            st.lists(st.tuples(names, inner), max_size=5).map(written),
        ),
        max_leaves=8,
    )


@st.composite
def mutated(draw, sound):
    """A sound body with some of its bytes replaced, cut out, doubled, or cut off."""
    body = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(body) - 1)))
        kind = draw(st.sampled_from(["replace", "insert", "cut", "truncate", "double"]))
        length = draw(st.integers(1, 12))
        if kind == "replace":
            body[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == "insert":
            body[at:at] = draw(st.one_of(st.binary(max_size=4), SCALARS.map(str.encode)))
        elif kind == "cut":
            del body[at : at + length]
        elif kind == "truncate":
            del body[at:]
        else:
            body[at:at] = body[at : at + length]
    return bytes(body)


@st.composite
def revalued(draw, sound):
    """A sound body with one of its values replaced by another JSON value."""
    content = json.loads(sound)
    where = content[draw(st.sampled_from(sorted(content)))]
    while isinstance(where, list) and isinstance(where[0], list):
        where = where[draw(st.integers(0, len(where) - 1))]
    key = draw(st.sampled_from(range(len(where)) if isinstance(where, list) else sorted(where)))
    where[key] = "HERE"
    return json.dumps(content).replace('"HERE"', draw(values(NAMES)), 1).encode()


def bodies(sound):
    ids = st.one_of(st.sampled_from([*COINS, "prices", "market_caps"]), NAMES)
    return st.one_of(
        mutated(sound),
        revalued(sound),
        st.lists(st.tuples(ids, values(NAMES)), max_size=4).map(lambda pairs: written(pairs).encode()),
        values(ids).map(str.encode),
        st.sampled_from([body if isinstance(body, str) else json.dumps(body) for _, body in ERRORS.values()]).map(
            str.encode
        ),
        st.sampled_from([body for _, body in ERRORS.values() if isinstance(body, dict)]).flatmap(
            lambda body: mutated(json.dumps(body).encode())
        ),
        st.binary(max_size=60),
        st.sampled_from([b"[" * 20_000, b'{"a":' * 20_000, b"\xff\xfe{}", "{}".encode("utf-16")]),
    )


STATUSES = st.one_of(
    st.just(200), st.just(200), st.sampled_from([status for status, _ in ERRORS.values()]), st.integers(100, 599)
)
HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "x-ratelimit-reset"]),
    st.one_of(
        st.text(string.printable, max_size=30),
        st.integers().map(str),
        st.sampled_from(
            ["Sun, 22 Nov 2026 12:00:30 GMT", "Sun, 22 Nov 2026 12:00:30 -0000", "2026-11-22 12:00:30 +0000", "9" * 200]
        ),
    ),
)


def check(read, status, headers, body):
    """Read an answer; it is valid rows, or an error that the retry policy understands."""
    answer = Answer("GET https://host/simple/price", status, headers, body, "2026-11-22T12:00:03Z")
    rows, error = [], None
    try:
        rows = read(answer)
    except CoinGeckoError as raised:
        error = raised
    if error is not None:
        assert error.answer is answer
        decision = ErrorRetryPolicy().evaluate(error, 1, 4)
        assert decision.retry_delay is None or timedelta(0) < decision.retry_delay <= timedelta(seconds=3601)
    text = format_raw_prices(rows)
    assert list(parse_raw_prices(text.partition("\n")[2])) == rows
    for row in rows:
        assert row.coin in COINS
        assert row.currency == "usd"
        assert 0 < float(row.price) < float("inf")
        for name in ("price", "market_cap", "volume_24h", "change_24h_pct"):
            assert not getattr(row, name) or Decimal(getattr(row, name)).is_finite()
            assert len(getattr(row, name)) <= 100
        for name in ("timestamp", "last_updated_at", "fetched_at"):
            assert not getattr(row, name) or parse_time(getattr(row, name)).tzinfo is UTC
    assert text.startswith(",".join(RAW_COLUMNS))


EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "500"))

FUZZ = settings(max_examples=EXAMPLES // 2, deadline=None, suppress_health_check=list(HealthCheck), database=None)


@FUZZ
@given(STATUSES, HEADERS, bodies(QUOTES))
def test_whatever_comes_as_prices_is_valid_rows_or_a_known_error(status, headers, body):
    def read(answer):
        rows, rejects = read_quotes(answer, COINS, "usd", NOON, "20261122T120000Z")
        # Every coin has either a row or a reason.
        assert sorted([*(row.coin for row in rows), *(reject.coin for reject in rejects)]) == sorted(COINS)
        assert [row.timestamp for row in rows] == ["2026-11-22T12:00:00Z"] * len(rows)
        return rows

    check(read, status, headers, body)


@FUZZ
@given(STATUSES, HEADERS, bodies(CHART))
def test_whatever_comes_as_history_is_valid_rows_or_a_known_error(status, headers, body):
    hours = hours_between(NOON - timedelta(hours=6), NOON)

    def read(answer):
        rows = read_history(answer, "bitcoin", "usd", hours, "20261122T120000Z-history", ends_now=False)
        assert {row.moment for row in rows} <= set(hours)
        for row in rows:
            assert abs(parse_time(row.last_updated_at) - row.moment) <= timedelta(minutes=30)
        return rows

    check(read, status, headers, body)


@pytest.mark.parametrize("path", [pytest.param("simple_price", id="prices"), pytest.param("range", id="history")])
def test_every_recorded_answer_is_rows_or_a_known_error(recordings, path):
    files = sorted(Path(recordings, "coingecko_responses").rglob("*.json"))
    assert files
    for file in files:

        def read(answer):
            if path == "range":
                return read_history(
                    answer, "bitcoin", "usd", hours_between(NOON - timedelta(9), NOON), "s", ends_now=False
                )
            return read_quotes(answer, COINS, "usd", NOON, "s")[0]

        check(read, 200, {}, file.read_bytes())


class Anything(SandboxServer):
    """Answers with a given response."""

    response = Response(200, b"")
    echo = False

    def respond(self, request):
        # Some proxies repeat what they were sent.
        echoed = request.headers["x-cg-demo-api-key"].encode() if self.echo else b""
        return Response(self.response.status_code, echoed + self.response.get_data())


def test_only_valid_rows_reach_archive_and_raw_log_and_the_key_reaches_nothing(make_world, clock, caplog):
    """Through the real client over HTTP, into real files."""
    world = make_world(coins=COINS)
    caplog.set_level(logging.DEBUG)
    messages = []
    polls = 0

    @settings(FUZZ, max_examples=EXAMPLES // 10)
    @given(STATUSES.filter(lambda status: status >= 200), bodies(QUOTES), st.booleans())
    @example(200, b'{"%s":{"usd":1.5}}' % COINS[0].encode(), False)  # noqa: FBT003 - as drawn
    def poll(status, body, echo):
        nonlocal polls
        polls += 1
        anything.response = Response(status, b"" if status in (204, 304) else body)
        anything.echo = echo and status not in (204, 304)
        as_of = clock.now = NOON + timedelta(hours=polls)
        app = replace(world, coingecko=anything).app()
        try:
            append_raw_log(app, fetch_prices(app, as_of))
        except CoinwatchError as error:
            messages.append(str(error))

    with Anything(clock) as anything:
        anything.url = anything.origin
        poll()
    assert polls >= EXAMPLES // 10
    rows = []
    for coin in COINS:
        path = world.settings.raw_path(coin)
        rows += parse_raw_prices(path.read_text().partition("\n")[2]) if path.exists() else []
    assert rows
    assert [row for row in rows if not 0 < float(row.price) < float("inf")] == []
    archived = [
        row
        for path in world.settings.archive_path.glob("*.csv")
        for row in parse_raw_prices(path.read_text().partition("\n")[2])
    ]
    assert sorted(archived, key=str) == sorted(rows, key=str)
    assert messages
    assert [text for text in [*messages, caplog.text] if "secret-key" in text] == []
    assert [name for name, content in world.files().items() if b"secret-key" in content] == []
