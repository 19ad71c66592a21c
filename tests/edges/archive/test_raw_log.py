import hashlib
import itertools
import threading
from dataclasses import replace

import pytest

from coinwatch.archive.raw_log import LoadedRows, RawLogError, append_raw_prices, stored_keys, strip_header
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


@pytest.mark.parametrize("torn", [5, 20, 150], ids=["the line", "half of it", "the header too"])
def test_a_torn_line_is_cut_reported_and_comes_again(tmp_path, caplog, torn):
    path = tmp_path / "bitcoin_raw.csv"
    append_raw_prices(path, [row(10)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-torn])
    append_raw_prices(path, [row(10)])
    assert path.read_bytes() == whole
    assert "torn last line" in caplog.text


def test_another_file_in_its_place_is_not_written_to(tmp_path):
    path = tmp_path / "bitcoin_raw.csv"
    path.write_text("timestamp,price\n2026-11-22T10:00:00Z,1\n")
    with pytest.raises(RawLogError, match="does not start with the raw log's header"):
        append_raw_prices(path, [row(10)])
    with pytest.raises(RawLogError, match="Move the file away"):
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


def loaded(path, keys):
    """What a warehouse has that has loaded the whole log."""
    content = path.read_bytes()
    return LoadedRows(len(content), 100, hashlib.sha256(content[-100:]).hexdigest(), keys)


def test_keys_are_those_between_two_timestamps_without_a_torn_line(tmp_path):
    path = tmp_path / "bitcoin_raw.csv"
    assert stored_keys(path, "2026-11-22T00:00:00Z", "2026-11-23T00:00:00Z") == set()
    append_raw_prices(path, [row(9), row(10), row(11, "history"), row(12)])
    with path.open("a") as file:
        file.write("2026-11-22T11:00:00Z,torn")
    assert stored_keys(path, "2026-11-22T10:00:00Z", "2026-11-22T11:00:00Z") == {row(10).key, row(11, "history").key}


def test_of_a_loaded_log_only_the_lines_after_the_position_are_read(tmp_path):
    path = tmp_path / "bitcoin_raw.csv"
    append_raw_prices(path, [row(9), row(10)])
    index = loaded(path, {row(10).key})
    append_raw_prices(path, [row(11)], index)
    # The warehouse is believed: nine o'clock is in the file and not in its answer.
    assert append_raw_prices(path, [row(hour) for hour in (9, 10, 11, 12)], index) == [row(9), row(12)]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-1] + b" \n", id="edited"),
        pytest.param(lambda content: content[: content[:-1].rfind(b"\n") + 1], id="cut"),
    ],
)
def test_a_log_that_does_not_fit_the_position_is_read_as_a_whole(tmp_path, damage):
    path = tmp_path / "bitcoin_raw.csv"
    append_raw_prices(path, [row(9), row(10)])
    index = loaded(path, {row(hour).key for hour in (9, 10, 11)})
    path.write_bytes(damage(path.read_bytes()))
    assert row(11) in append_raw_prices(path, [row(9), row(11)], index)
    assert path.read_bytes().count(b"\n2026-11-22T09:00:00Z,") == 1
