import pytest

from coinwatch.warehouse.log_reader import read_new_lines


def read(warehouse, path):
    with warehouse.begin() as connection:
        new = read_new_lines(connection, "log", path)
        new.commit(connection)
    return new.lines, new.start, new.restarted


def test_each_line_is_read_once(warehouse, tmp_path):
    path = tmp_path / "log"
    assert read(warehouse, path) == (b"", 0, "")
    path.write_bytes(b"header\n1\n")
    assert read(warehouse, path) == (b"header\n1\n", 0, "")
    assert read(warehouse, path) == (b"", 9, "")
    with path.open("ab") as file:
        file.write(b"2\n3\n")
    assert read(warehouse, path) == (b"2\n3\n", 9, "")


def test_a_line_that_is_still_being_written_waits_for_its_end(warehouse, tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"1\n2")
    assert read(warehouse, path) == (b"1\n", 0, "")
    path.write_bytes(b"1\n22\n")
    assert read(warehouse, path) == (b"22\n", 2, "")


def read_and_crash(warehouse, path):
    with warehouse.begin() as connection:
        read_new_lines(connection, "log", path).commit(connection)
        raise RuntimeError("crash")


def test_what_was_read_but_not_committed_is_read_again(warehouse, tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"1\n")
    with pytest.raises(RuntimeError, match="crash"):
        read_and_crash(warehouse, path)
    assert read(warehouse, path) == (b"1\n", 0, "")


@pytest.mark.parametrize(
    ("now", "said"),
    [
        pytest.param(b"1\n", "had been read: it was cut or replaced", id="shorter"),
        pytest.param(b"1\nX\n3\n", "was changed before byte 4", id="changed"),
        pytest.param(None, "has 0 bytes, but 4 had been read", id="gone"),
    ],
)
def test_a_log_that_is_not_the_one_that_was_read_is_read_again_and_said(warehouse, tmp_path, now, said):
    path = tmp_path / "log"
    path.write_bytes(b"1\n2\n")
    read(warehouse, path)
    path.unlink()
    if now is not None:
        path.write_bytes(now)
    lines, start, restarted = read(warehouse, path)
    assert (lines, start) == (now or b"", 0)
    assert said in restarted
    assert read(warehouse, path) == (b"", len(now or b""), "")


def test_a_long_log_is_checked_by_its_last_bytes_only(warehouse, tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"%08d\n" % number for number in range(10_000)))
    read(warehouse, path)
    with path.open("ab") as file:
        file.write(b"new\n")
    assert read(warehouse, path) == (b"new\n", 90_000, "")
