import pytest

from coinwatch.record import RawPrice, format_raw_prices, parse_raw_prices

ROW = RawPrice(
    timestamp="2026-11-22T10:00:00Z",
    coin="bitcoin",
    currency="usd",
    price="76975.123456789012345678",
    market_cap="1.5422269083498406e+12",
    volume_24h="",
    change_24h_pct="-1.40",
    last_updated_at="2026-11-22T09:59:41Z",
    fetched_at="2026-11-22T10:00:03Z",
    source="live",
    snapshot="20261122T100000Z",
)


def test_every_digit_and_every_unknown_survives_the_file():
    text = format_raw_prices([ROW])
    assert text.splitlines()[1] == (
        "2026-11-22T10:00:00Z,bitcoin,usd,76975.123456789012345678,1.5422269083498406e+12,,-1.40,"
        "2026-11-22T09:59:41Z,2026-11-22T10:00:03Z,live,20261122T100000Z"
    )
    assert text.endswith("\n")
    assert "\r" not in text
    assert list(parse_raw_prices(format_raw_prices([ROW], header=False))) == [ROW]


def test_a_line_with_other_columns_is_refused_by_its_number():
    with pytest.raises(ValueError, match="line 2 has 3 fields instead of 11"):
        list(parse_raw_prices(format_raw_prices([ROW], header=False) + "a,b,c\n"))
