import pytest

from coinwatch.warehouse.log_reader import commit_positions, read_logs


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
