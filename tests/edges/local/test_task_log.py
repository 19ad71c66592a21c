import json

from coinwatch.local.task_log import read_task_log


def write(path, *entries):
    path.write_text("".join(f"{entry if isinstance(entry, str) else json.dumps(entry)}\n" for entry in entries))
    return path


def test_the_reason_is_the_last_exception_that_the_log_tells_of(tmp_path):
    detail = [
        {"exc_type": "CoinGeckoError", "exc_value": "nobody answers", "frames": []},
        {"exc_type": "OSError", "exc_value": "its cause", "frames": []},
    ]
    path = write(
        tmp_path / "attempt=1.log",
        {"event": "begun", "level": "info"},
        {"event": "x", "level": "warning", "error_detail": [{"exc_type": "ValueError", "exc_value": "earlier"}]},
        {"event": "Task failed with exception", "level": "error", "error_detail": detail},
        {"event": "ended", "level": "info"},
    )
    assert read_task_log(path) == "CoinGeckoError: nobody answers"


def test_without_an_exception_it_is_the_end_of_the_log(tmp_path):
    path = write(tmp_path / "log", {"event": "a", "level": "info"}, {"event": "b", "level": "error"}, "no JSON", "[1]")
    assert read_task_log(path, lines=3) == "error b\nno JSON\n[1]"


def test_a_log_that_is_not_there_is_named(tmp_path):
    assert read_task_log(tmp_path / "log") == f"(there is no log {tmp_path / 'log'})"
