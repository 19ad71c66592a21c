import pytest

from coinwatch.warehouse.log_reader import commit_positions, forget_position, read_logs


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def read(warehouse, path):
    """Read the log and commit: () → (lines, start, why it was restarted)."""

    def read():
        with warehouse.begin() as connection:
            (new,) = read_logs(connection, {"log": path})
            commit_positions(connection, [new])
        return new.lines, new.start, new.restarted

    return read


def test_each_line_is_read_once_and_a_torn_one_waits_for_its_end(read, path):
    assert read() == (b"", 0, "")
    path.write_bytes(b"header\n1\n2")
    assert read() == (b"header\n1\n", 0, "")
    assert read() == (b"", 9, "")
    with path.open("ab") as file:
        file.write(b"2\n3\n")
    assert read() == (b"22\n3\n", 9, "")


def read_and_crash(warehouse, path):
    with warehouse.begin() as connection:
        commit_positions(connection, read_logs(connection, {"log": path}))
        raise RuntimeError("crash")


def test_lines_are_read_again_unless_they_were_committed(warehouse, read, path):
    path.write_bytes(b"1\n")
    with pytest.raises(RuntimeError, match="crash"):
        read_and_crash(warehouse, path)
    assert read() == (b"1\n", 0, "")
    with warehouse.begin() as connection:
        forget_position(connection, "log")
    assert read() == (b"1\n", 0, "")


@pytest.mark.parametrize(
    ("content", "restarted"),
    [
        pytest.param(b"1\n", "{} has 2 bytes, but 4 were read: it was cut or replaced", id="shorter"),
        pytest.param(b"1\nX\n3\n", "{} was changed before byte 4, up to which it was read", id="changed"),
        pytest.param(None, "{} is missing, but 4 bytes of it were read", id="deleted"),
    ],
)
def test_a_changed_log_is_read_again_once(read, path, content, restarted):
    path.write_bytes(b"1\n2\n")
    read()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert read() == (content or b"", 0, restarted.format(path))
    assert read() == (b"", len(content or b""), "")


def test_a_long_log_is_compared_by_its_last_bytes(read, path):
    path.write_bytes(b"".join(b"%08d\n" % number for number in range(10_000)))
    read()
    with path.open("ab") as file:
        file.write(b"new\n")
    assert read() == (b"new\n", 90_000, "")


def test_a_limit_is_kept_over_all_logs_and_cuts_no_line(warehouse, tmp_path):
    logs = {name: tmp_path / name for name in ("a", "b", "c")}
    for path in logs.values():
        path.write_bytes(b"1234\n" * 4)
    chunks = []
    for _ in range(4):
        with warehouse.begin() as connection:
            chunk = read_logs(connection, logs, limit=22)
            commit_positions(connection, chunk)
        chunks.append({new.log: new.lines for new in chunk if new.lines})
    assert chunks == [
        {"a": b"1234\n" * 4, "b": b"1234\n"},
        {"b": b"1234\n" * 3, "c": b"1234\n" * 2},
        {"c": b"1234\n" * 2},
        {},
    ]
