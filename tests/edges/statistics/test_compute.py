import contextlib
from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import pytest
from sqlalchemy import text

from coinwatch.alerts.incidents import detect_anomalies
from coinwatch.statistics import compute
from coinwatch.statistics.compute import compute_rolling_statistics
from coinwatch.statistics.processed_csv import export_processed_csv
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import open_warehouse
from coinwatch.warehouse.work import clear_work, mark_work, pending_work

TEN = datetime(2026, 11, 22, 10, tzinfo=UTC)


def at(hours):
    return TEN + timedelta(hours=hours)


def take_work(pipeline, step):
    """Return the pending work of a step, by coin, and clear it."""
    rows = pipeline.rows(schema.pending_work, "coin", "since", step=step)
    with pipeline.app.warehouse.begin() as connection:
        clear_work(connection, step, "usd", {row.coin: row.since for row in rows})
    return {row.coin: row.since for row in rows}


def test_new_rows_are_computed_once_and_leave_work_for_the_steps_after(pipeline):
    pipeline.load(0, 1, source="history")
    pipeline.load(2, 3)
    pipeline.load(1, source="history", coin="ethereum")
    assert compute_rolling_statistics(pipeline.app) == 5
    assert compute_rolling_statistics(pipeline.app) == 0
    assert take_work(pipeline, "export") == {"bitcoin": at(0), "ethereum": at(1)}
    assert take_work(pipeline, "detection") == {"bitcoin": at(2)}, "hours of history raise no alert"
    uploads = pipeline.rows(schema.pending_uploads, "hour", layer="processed")
    assert [hour for (hour,) in uploads] == [at(0), at(1), at(2), at(3)]


@pytest.mark.parametrize(
    ("hour", "source", "since"),
    [
        pytest.param(1, "history", 4, id="an hour filled in later: the newest price may mean something else now"),
        pytest.param(3, "live", 3, id="a live price in the place of history"),
        pytest.param(2.5, "live", 2.5, id="a live price that comes late, as one released from quarantine"),
        pytest.param(5, "history", None, id="the newest price is history"),
    ],
)
def test_detection_gets_new_live_prices_and_the_newest_one(pipeline, hour, source, since):
    pipeline.load(0, 2, 4)
    pipeline.load(3, source="history")
    compute_rolling_statistics(pipeline.app)
    take_work(pipeline, "detection")
    pipeline.load(hour, source=source)
    compute_rolling_statistics(pipeline.app)
    assert take_work(pipeline, "detection") == ({} if since is None else {"bitcoin": at(since)})


def test_detection_waits_for_the_statistics_of_a_live_price_in_the_place_of_history(pipeline):
    pipeline.load(*range(50), 51, source="history")
    pipeline.load(50)
    compute_rolling_statistics(pipeline.app)
    pipeline.load(51, price="80")
    assert detect_anomalies(pipeline.app, "run") == []
    compute_rolling_statistics(pipeline.app)
    assert len(detect_anomalies(pipeline.app, "run")) == 1


def test_hour_by_hour_it_is_the_same_as_at_once_also_after_an_outage(pipeline, tmp_path, new_sqlite):
    # The first ones are enough to learn the typical move.
    hours = [*range(50), 50.5, 51, 120, 121, *range(123, 130)]
    engine = open_warehouse(new_sqlite(tmp_path / "other.db"))
    other = type(pipeline)(engine, tmp_path)
    pipeline.load(*hours)
    pipeline.load(*hours[45:], coin="ethereum", currency="eur", price="7")
    compute_rolling_statistics(pipeline.app)
    other.load(*hours[:40])
    for number, hour in enumerate(hours[40:]):
        other.load(hour)
        if number >= 5:
            other.load(hour, coin="ethereum", currency="eur", price="7")
        compute_rolling_statistics(other.app)
    assert other.rows(schema.price_statistics) == pipeline.rows(schema.price_statistics)
    engine.dispose()


@pytest.mark.parametrize("chunk", [28, 30, 41, 200])
def test_in_chunks_it_is_the_same_and_a_crash_costs_one(pipeline, tmp_path, monkeypatch, chunk):
    engine = open_warehouse(f"sqlite:///{tmp_path / 'other.db'}")
    other = type(pipeline)(engine, tmp_path)
    for each in (pipeline, other):
        each.load(*range(70), 200, 201)
        each.load(*range(3), coin="ethereum")
        each.load(*range(40), coin="solana", source="history")
    assert compute_rolling_statistics(other.app) == 72 + 3 + 40
    monkeypatch.setattr(compute, "CHUNK_ROWS", chunk)
    crashes = iter([False, True, False, True])
    store = compute.store_statistics

    def store_or_crash(*arguments):
        if next(crashes, False):
            raise RuntimeError("crash")
        store(*arguments)

    monkeypatch.setattr(compute, "store_statistics", store_or_crash)
    for _ in range(2):
        with contextlib.suppress(RuntimeError):
            compute_rolling_statistics(pipeline.app)
    compute_rolling_statistics(pipeline.app)
    for table in (schema.price_statistics, schema.pending_work, schema.pending_uploads):
        assert pipeline.rows(table) == other.rows(table)
    engine.dispose()


@pytest.mark.postgres
def test_on_postgresql_rows_and_csv_are_those_of_sqlite(pipeline, postgres, tmp_path):
    engine = open_warehouse(postgres.new_database())
    other = type(pipeline)(engine, tmp_path / "postgresql")
    for each in (pipeline, other):
        each.app.settings.data_dir.mkdir(exist_ok=True)
        for hours in (range(40), (41, 42), (43,), (44.5,), (200,)):
            each.load(*hours)
            compute_rolling_statistics(each.app)
            export_processed_csv(each.app)
        each.load(40, source="history")
        compute_rolling_statistics(each.app)
        export_processed_csv(each.app)
    assert other.rows(schema.price_statistics) == pipeline.rows(schema.price_statistics)
    csv = [each.app.settings.processed_path("bitcoin").read_bytes() for each in (pipeline, other)]
    assert csv[0] == csv[1]
    engine.dispose()


def test_work_that_another_run_adds_while_this_one_does_its_own_is_kept(postgres):
    """Detection reads its work; then another run computes an hour more; then the first one clears what it did."""
    engine = open_warehouse(postgres.new_database())
    with engine.begin() as connection:
        mark_work(connection, "detection", "usd", {"bitcoin": at(0)})
    done = Event()

    def other_run():
        with engine.begin() as connection:
            mark_work(connection, "detection", "usd", {"bitcoin": at(1)})
        done.set()

    thread = Thread(target=other_run)
    with engine.begin() as connection:
        work = pending_work(connection, "detection")["usd"]
        thread.start()
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        while not done.is_set() and not connection.execute(waiting).scalar():
            pass
        clear_work(connection, "detection", "usd", work)
    thread.join()
    with engine.begin() as connection:
        assert pending_work(connection, "detection") == {"usd": {"bitcoin": at(1)}}
    engine.dispose()
