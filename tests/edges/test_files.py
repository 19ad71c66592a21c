import resource
import stat
import threading

import pytest

from coinwatch.files import append_lines, create_file, locked, open_log, replace_file


def test_a_file_is_created_once_and_read_only(tmp_path):
    path = tmp_path / "deep" / "snapshot.json"
    create_file(path, b"first")
    with pytest.raises(FileExistsError):
        create_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert list(path.parent.iterdir()) == [path]


def test_a_replaced_file_is_the_new_one_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "processed.csv"
    replace_file(path, b"old")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "kept", "cut"),
    [
        pytest.param(b"", b"", b"", id="empty"),
        pytest.param(b"a\nb\n", b"a\nb\n", b"", id="whole"),
        pytest.param(b"a\nb", b"a\n", b"b", id="torn"),
        pytest.param(b"torn", b"", b"torn", id="only a torn line"),
        pytest.param(b"a\n" + b"x" * 10_000, b"a\n", b"x" * 10_000, id="torn line longer than a block"),
    ],
)
def test_only_a_torn_last_line_is_cut_and_logged(tmp_path, caplog, content, kept, cut):
    path = tmp_path / "log"
    path.write_bytes(content)
    open_log(path).close()
    assert path.read_bytes() == kept
    assert [f"torn last line of {len(cut)} bytes" in text for text in caplog.messages] == [True] * bool(cut)


def test_lines_that_the_disk_takes_only_in_part_leave_the_log_as_it_was(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"first\n")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with open_log(path) as file, pytest.raises(OSError, match="File too large"):
            append_lines(file, b"second\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"first\n"


def test_one_holder_of_a_lock_at_a_time(tmp_path):
    path = tmp_path / "log"
    order = []
    entered = threading.Event()

    def second():
        entered.set()
        with locked(path):
            order.append("second")

    with locked(path):
        other = threading.Thread(target=second)
        other.start()
        entered.wait()
        order.append("first")
    other.join()
    assert order == ["first", "second"]
