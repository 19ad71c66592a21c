import itertools
import threading
from dataclasses import replace

import pytest

from coinwatch.archive.raw_log import RawLogError, append_raw_prices, stored_timestamps, strip_header
from coinwatch.record import RawPrice, format_raw_prices


def row(hour, source="live", price="100.5"):
    timestamp = f"2026-11-22T{hour:02}:00:00Z"
    return RawPrice(timestamp, "bitcoin", "usd", price, "", "", "", "", timestamp, source, "snapshot")


def test_rows_are_appended_under_one_header_in_the_order_given(tmp_path):
    path = tmp_path / "bitcoin_raw.csv"
    assert append_raw_prices(path, [row(11), row(10)]) == [row(11), row(10)]
    append_raw_prices(path, [row(9, "history")])
    assert path.read_text() == format_raw_prices([row(11), row(10), row(9, "history")])


def test_a_row_that_is_there_is_not_appended_again_whatever_it_says(tmp_path):
    path = tmp_path / "bitcoin_raw.csv"
    append_raw_prices(path, [row(10)])
    before = path.read_bytes()
    assert append_raw_prices(path, [row(10), row(10, price="999")]) == []
    assert path.read_bytes() == before
    assert append_raw_prices(path, [row(10, "history"), row(10, "history")]) == [row(10, "history")]


def test_a_torn_line_is_cut_reported_and_comes_again(tmp_path, caplog):
    path = tmp_path / "bitcoin_raw.csv"
    append_raw_prices(path, [row(10), row(11)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    append_raw_prices(path, [row(11)])
    assert path.read_bytes() == whole
    assert "ended in a torn line" in caplog.text


def test_a_header_that_was_torn_is_written_again(tmp_path):
    path = tmp_path / "bitcoin_raw.csv"
    path.write_text("timestamp,co")
    append_raw_prices(path, [row(10)])
    assert path.read_text() == format_raw_prices([row(10)])


def test_another_file_in_its_place_is_not_written_to(tmp_path):
    path = tmp_path / "bitcoin_raw.csv"
    path.write_text("timestamp,price\n2026-11-22T10:00:00Z,1\n")
    with pytest.raises(RawLogError, match="does not start with the raw log's header"):
        append_raw_prices(path, [row(10)])
    with pytest.raises(RawLogError, match="Move it away"):
        strip_header(path, path.read_bytes())
    assert path.read_text() == "timestamp,price\n2026-11-22T10:00:00Z,1\n"


def test_many_writers_at_once_lose_and_double_nothing(tmp_path):
    path = tmp_path / "bitcoin_raw.csv"
    ready = threading.Barrier(8)

    def write(number):
        ready.wait()
        for hour in range(24):
            # Every writer has a row of its own and one that all others have too.
            append_raw_prices(path, [row(hour), replace(row(hour), currency=f"cur{number}")])

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = path.read_text().splitlines()[1:]
    assert len(lines) == len(set(lines)) == 24 * 9


def test_killed_at_any_line_and_run_again_it_ends_as_if_nothing_had_happened(tmp_path, kill_at_line):
    for number in itertools.count(1):
        path = tmp_path / str(number) / "bitcoin_raw.csv"
        append_raw_prices(path, [row(9)])
        killed = kill_at_line(lambda path=path: append_raw_prices(path, [row(10), row(11)]), number)
        append_raw_prices(path, [row(10), row(11)])
        assert path.read_text() == format_raw_prices([row(9), row(10), row(11)])
        if not killed:
            break
    assert number > 20


def test_timestamps_are_found_from_a_time_on(tmp_path):
    path = tmp_path / "bitcoin_raw.csv"
    assert stored_timestamps(path, "2026-11-22T00:00:00Z") == set()
    append_raw_prices(path, [row(9), row(10), row(11, "history")])
    with path.open("a") as file:
        file.write("2026-11-22T12:00:00Z,torn")
    assert stored_timestamps(path, "2026-11-22T10:00:00Z") == {"2026-11-22T10:00:00Z", "2026-11-22T11:00:00Z"}
