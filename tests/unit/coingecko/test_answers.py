import json
from datetime import UTC, datetime

import pytest

from coinwatch.archive.snapshots import Answer
from coinwatch.coingecko import response_errors as errors
from coinwatch.coingecko.answers import read_history, read_json, read_quotes
from coinwatch.coingecko.response_errors import retry_after
from coinwatch.record import RawPrice
from coinwatch.times import parse_time

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
FETCHED_AT = "2026-11-22T12:00:03Z"


def answer(body, status=200, **headers):
    content = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return Answer("GET https://host/simple/price", status, headers, content, FETCHED_AT)


def quotes(body, coins=("bitcoin",), **more):
    return read_quotes(answer(body, **more), coins, "usd", NOON, "20261122T120000Z")


def test_a_live_price_keeps_every_digit_as_it_was_written():
    rows, rejects = quotes(
        '{"bitcoin":{"usd":76975.123456789012345678,"usd_market_cap":1.5422269083498406E+12,'
        '"usd_24h_vol":29096603418,"usd_24h_change":-1.40,"last_updated_at":1779092258}}'
    )
    assert rejects == []
    assert rows == [
        RawPrice(
            timestamp="2026-11-22T12:00:00Z",
            coin="bitcoin",
            currency="usd",
            price="76975.123456789012345678",
            market_cap="1.5422269083498406E+12",
            volume_24h="29096603418",
            change_24h_pct="-1.40",
            last_updated_at="2026-05-18T08:17:38Z",
            fetched_at=FETCHED_AT,
            source="live",
            snapshot="20261122T120000Z",
        )
    ]


def test_what_is_null_or_absent_is_unknown_and_never_zero():
    rows, rejects = quotes('{"bitcoin":{"usd":6.44e-06,"usd_24h_change":null,"last_updated_at":null}}')
    assert rejects == []
    row = rows[0]
    assert row.price == "6.44e-06"
    assert (row.market_cap, row.volume_24h, row.change_24h_pct, row.last_updated_at) == ("", "", "", "")


def test_each_coin_without_a_usable_price_is_a_reject_and_the_others_are_rows():
    body = {
        "bitcoin": {"usd": 1},
        "nexa": {"usd": None},
        "zero": {"usd": 0},
        "minus": {"usd": -1.5},
        "huge": {"usd": 10**200},
        "empty": {},
        "list": [1],
        "text": {"usd": "1"},
    }
    content = json.dumps(body).replace(str(10**200), "1e400")
    rows, rejects = quotes(content, ("nexa", "gone", *body))
    assert [row.coin for row in rows] == ["bitcoin"]
    assert [(reject.coin, reject.kind, reject.value) for reject in rejects] == [
        ("nexa", "no_price", ""),
        ("gone", "unknown_id", ""),
        ("nexa", "no_price", ""),
        ("zero", "bad_value", "0"),
        ("minus", "bad_value", "-1.5"),
        ("huge", "bad_value", "1e400"),
        ("empty", "no_price", ""),
        ("list", "unexpected", "[Decimal('1')]"),
        ("text", "unexpected", "'1'"),
    ]
    assert all(reject.reason for reject in rejects)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param('{"bitcoin":[1]}', "bitcoin is list instead of an object", id="a list for a coin"),
        pytest.param('{"bitcoin":{"usd":"1"}}', "bitcoin.usd is '1', not a number", id="a text for a price"),
        pytest.param('{"bitcoin":{"usd":true}}', "bitcoin.usd is True, not a number", id="true for a price"),
        pytest.param(
            '{"bitcoin":{"usd":1,"usd_24h_vol":{}}}', "bitcoin.usd_24h_vol is {}, not a number", id="an object"
        ),
        pytest.param(
            '{"bitcoin":{"usd":1,"last_updated_at":1.5}}',
            "last_updated_at is 1.5, not a UNIX",
            id="half a second",
        ),
        pytest.param('{"bitcoin":{"usd":1,"last_updated_at":1779092258000}}', "not a UNIX time", id="millis"),
        pytest.param("[]", "the answer is a list instead of an object", id="a list"),
        pytest.param('["' + "x" * 5000 + '"]', "the answer is a list", id="a long one"),
        pytest.param("null", "the answer is a NoneType instead of an object", id="null"),
    ],
)
def test_an_answer_of_another_shape_names_coin_field_and_body(body, text):
    with pytest.raises(errors.UnexpectedAnswer) as failure:
        quotes(body)
    assert text in str(failure.value)
    assert str(failure.value).endswith(repr(body[:200]))
    assert failure.value.answer.body == body.encode()


HTML = "<!DOCTYPE html><title>Access denied | api.coingecko.com used Cloudflare to restrict access</title>"
TIME_RANGE = "Your request exceeds the allowed time range. Public API users are limited to the past 365 days."
ADDRESSES = "Number of contract addresses exceeds the limit"
NO_ACCESS = "Your plan does not have access to this endpoint"


def coded(code, message="said so"):
    return {"status": {"error_code": code, "error_message": message}}


RATE_LIMIT = coded(429, "You've exceeded the Rate Limit.")


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        pytest.param(429, RATE_LIMIT, errors.RateLimited, id="429"),
        pytest.param(429, HTML, errors.RateLimited, id="429 as a page"),
        pytest.param(429, "", errors.RateLimited, id="429 without a body"),
        pytest.param(200, RATE_LIMIT, errors.RateLimited, id="429 under a 200"),
        pytest.param(401, coded(10002), errors.KeyRejected, id="10002"),
        pytest.param(401, coded(401), errors.KeyRejected, id="401"),
        pytest.param(401, "", errors.KeyRejected, id="401 without a body"),
        pytest.param(400, coded(10010), errors.KeyRejected, id="10010"),
        pytest.param(400, {"error_code": 10011, "status": {}}, errors.KeyRejected, id="10011 at the top"),
        pytest.param(401, {"error": coded(10012, TIME_RANGE)}, errors.BeyondPlan, id="10012 for a time range"),
        pytest.param(200, {"error": coded(10012, TIME_RANGE)}, errors.BeyondPlan, id="10012 under a 200"),
        pytest.param(403, coded(10005), errors.BeyondPlan, id="10005"),
        pytest.param(403, {"error": NO_ACCESS}, errors.BeyondPlan, id="plan in words"),
        pytest.param(400, coded(10012, ADDRESSES), errors.BadRequest, id="10012 for a batch"),
        pytest.param(404, {"error": "coin not found"}, errors.UnknownCoin, id="404"),
        pytest.param(200, {"error": "coin not found"}, errors.UnknownCoin, id="404 under a 200"),
        pytest.param(404, {"error": "Could not find coin with the given id"}, errors.UnknownCoin, id="404, older"),
        pytest.param(422, {"error": "Missing parameter vs_currencies"}, errors.BadRequest, id="422"),
        pytest.param(400, {"error": "invalid vs_currency"}, errors.BadRequest, id="400"),
        pytest.param(403, HTML, errors.Unavailable, id="403 as a page"),
        pytest.param(302, "", errors.BadRequest, id="a redirect"),
        pytest.param(408, "", errors.Unavailable, id="408"),
        pytest.param(500, coded(500), errors.Unavailable, id="500"),
        pytest.param(502, "Bad Gateway", errors.Unavailable, id="502"),
        pytest.param(200, HTML, errors.Unavailable, id="a page under a 200"),
        pytest.param(200, '{"bitcoin":{"usd":76', errors.Unavailable, id="broken off"),
        pytest.param(200, '{"bitcoin":{"usd":NaN}}', errors.Unavailable, id="NaN"),
        pytest.param(200, b"\xff\xfe\xfa", errors.Unavailable, id="no text at all"),
        pytest.param(200, "[" * 100_000, errors.Unavailable, id="brackets without end"),
        pytest.param(200, {"error": "something new"}, errors.UnexpectedAnswer, id="an unknown error"),
        pytest.param(200, {"error": {"reason": "new"}}, errors.UnexpectedAnswer, id="an error of another shape"),
    ],
)
def test_every_error_of_coingecko_has_a_class_that_says_whether_an_operator_must_act(status, body, error):
    with pytest.raises(errors.CoinGeckoError) as failure:
        read_json(answer(body, status))
    assert type(failure.value) is error
    assert failure.value.answer.status == status
    assert failure.value.retryable == (error in (errors.RateLimited, errors.Unavailable, errors.UnexpectedAnswer))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({}, None, id="no header"),
        pytest.param({"retry-after": "119"}, 119.0, id="seconds"),
        pytest.param({"retry-after": "Sun, 22 Nov 2026 12:00:33 GMT"}, 30.0, id="a date"),
        pytest.param({"x-ratelimit-reset": "2026-11-22 12:01:00 +0000"}, 57.0, id="reset"),
        pytest.param({"retry-after": "soon", "x-ratelimit-reset": "2026-11-22 12:01:00 +0000"}, 57.0, id="unreadable"),
        pytest.param({"x-ratelimit-reset": "2026-11-22 11:00:00 +0000"}, 0.0, id="over already"),
        pytest.param({"x-ratelimit-reset": "1779092258"}, None, id="unreadable reset"),
    ],
)
def test_retry_after_is_read_from_either_header(headers, seconds):
    assert retry_after(answer("", 429, **headers)) == seconds
    with pytest.raises(errors.RateLimited) as failure:
        read_json(answer(RATE_LIMIT, 429, **headers))
    assert failure.value.retry_after == seconds


def point(text):
    return int(parse_time(text).timestamp() * 1000)


def history(body, hours, *, ends_now=False):
    return read_history(answer(body), "bitcoin", "usd", set(map(parse_time, hours)), "snap", ends_now=ends_now)


def test_an_hour_takes_the_point_nearest_to_it_with_what_belongs_to_the_same_moment():
    body = {
        "prices": [
            [point("2026-11-22T09:00:41.331Z"), 90.5],
            [point("2026-11-22T09:58:00Z"), 97],
            [point("2026-11-22T10:00:47Z"), 100.25],
            [point("2026-11-22T11:31:00Z"), 131],
        ],
        "market_caps": [[point("2026-11-22T10:00:47Z"), 5], [point("2026-11-22T09:00:41.331Z"), None]],
        "total_volumes": [[point("2026-11-22T09:00:41.331Z"), 7.5]],
    }
    rows = history(body, ["2026-11-22T09:00:00Z", "2026-11-22T10:00:00Z", "2026-11-22T11:00:00Z"])
    assert [(row.timestamp, row.price, row.market_cap, row.volume_24h, row.last_updated_at) for row in rows] == [
        ("2026-11-22T09:00:00Z", "90.5", "", "7.5", "2026-11-22T09:00:41.331Z"),
        ("2026-11-22T10:00:00Z", "100.25", "5", "", "2026-11-22T10:00:47Z"),
    ]
    assert {(row.source, row.change_24h_pct, row.fetched_at, row.snapshot) for row in rows} == {
        ("history", "", FETCHED_AT, "snap")
    }


def test_a_point_half_an_hour_away_counts_for_the_hour_before_and_of_two_as_near_the_earlier_one():
    body = {
        "prices": [
            [point("2026-11-22T10:30:00Z"), 1],
            [point("2026-11-22T10:59:00Z"), 2],
            [point("2026-11-22T11:01:00Z"), 3],
        ]
    }
    rows = history(body, ["2026-11-22T10:00:00Z", "2026-11-22T11:00:00Z"])
    assert [(row.timestamp, row.price) for row in rows] == [
        ("2026-11-22T10:00:00Z", "1"),
        ("2026-11-22T11:00:00Z", "2"),
    ]


def test_the_last_point_of_a_window_that_ends_now_is_no_hour():
    body = {"prices": [[point("2026-11-22T11:00:30Z"), 1], [point("2026-11-22T12:00:02Z"), 2]]}
    hours = ["2026-11-22T11:00:00Z", "2026-11-22T12:00:00Z"]
    assert [row.price for row in history(body, hours, ends_now=True)] == ["1"]
    assert [row.price for row in history(body, hours)] == ["1", "2"]


def test_null_and_impossible_prices_leave_their_hour_open():
    body = {"prices": [[point("2026-11-22T10:00:30Z"), None], [point("2026-11-22T11:00:30Z"), 0]]}
    assert history(body, ["2026-11-22T10:00:00Z", "2026-11-22T11:00:00Z"]) == []
    assert history({"prices": []}, ["2026-11-22T10:00:00Z"]) == []


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param({}, "prices of bitcoin's history: Field required", id="no prices"),
        pytest.param({"prices": [[1]]}, "prices.0.1 of bitcoin's history", id="half a point"),
        pytest.param({"prices": [["x", 1]]}, "prices.0.0 of bitcoin's history", id="a text for a time"),
        pytest.param({"prices": [[1779092258000.5, 1]]}, "not a UNIX time in milliseconds", id="half a millisecond"),
        pytest.param({"prices": [[-5, 1]]}, "-5 in bitcoin's history is not a UNIX time", id="before time"),
    ],
)
def test_a_history_of_another_shape_is_named(body, text):
    with pytest.raises(errors.UnexpectedAnswer) as failure:
        history(body, ["2026-11-22T10:00:00Z"])
    assert text in str(failure.value)
