from datetime import UTC, datetime, timedelta

from coinwatch.warehouse.work import clear_work, mark_work, pending_work

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)
ELEVEN = TEN + timedelta(hours=1)


def test_pending_work_reaches_back_to_the_earliest_mark(warehouse):
    with warehouse.begin() as connection:
        for moment in (ELEVEN, TEN, ELEVEN):
            mark_work(connection, "export", "usd", {"bitcoin": moment})
        assert pending_work(connection, "export") == {"usd": {"bitcoin": TEN}}
        assert pending_work(connection, "statistics") == {}


def test_work_whose_mark_has_changed_is_not_cleared(warehouse):
    with warehouse.begin() as connection:
        mark_work(connection, "export", "usd", {"bitcoin": ELEVEN, "ethereum": ELEVEN})
        done = pending_work(connection, "export")["usd"]
        mark_work(connection, "export", "usd", {"bitcoin": TEN})
        clear_work(connection, "export", "usd", done)
        clear_work(connection, "export", "usd", {})
        assert pending_work(connection, "export") == {"usd": {"bitcoin": TEN}}
