"""What an hour costs does not grow with what is stored, and it sends no statement for each coin."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, event

HOUR = timedelta(hours=1)


@pytest.fixture
def statements():
    """Every statement that is sent to a database, as it is sent."""
    sent = []

    def note(_connection, _cursor, statement, *_rest):
        sent.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield sent
    event.remove(Engine, "before_cursor_execute", note)


def live_hour(world, as_of):
    """The steps of an hour that has nothing to heal."""
    world.clock.now = as_of
    return [*world.ingest_steps(as_of)[:3], *world.process_steps()]


def cost(world, as_of, statements):
    """Return the statements of each step of an hour."""
    counts = []
    for step in live_hour(world, as_of):
        statements.clear()
        step()
        counts.append(len(statements))
    return counts


def names(number):
    return tuple(f"simulated-{each}" for each in range(number))


def test_an_hour_of_many_coins_sends_as_many_statements_as_one_of_few(make_world, noon, statements):
    costs = []
    for number in (2, 25):
        world = make_world(f"of-{number}", coins=names(number), history_days=2)
        world.run(noon)
        for step in live_hour(world, noon + HOUR):
            step()
        costs.append(cost(world, noon + HOUR * 2, statements))
    few, many = costs
    assert many == few
    assert max(many) < 30


def test_an_hour_writes_its_own_rows_however_many_are_stored(make_world, noon, statements):
    costs, grown = [], []
    for days in (2, 8):
        world = make_world(f"of-{days}", coins=names(1), history_days=days)
        world.clock.now = noon
        world.run(noon)
        for step in live_hour(world, noon + HOUR):
            step()
        logs = sorted(world.settings.data_dir.glob("*.csv"))
        before = [(path.stat().st_ino, path.read_bytes()) for path in logs]
        costs.append(cost(world, noon + HOUR * 2, statements))
        for path, (inode, content) in zip(logs, before, strict=True):
            assert path.stat().st_ino == inode
            assert path.read_bytes().startswith(content)
            assert path.read_bytes()[len(content) :].count(b"\n") == 1
        grown.append(len(before[0][1]))
    assert grown[1] > 3 * grown[0]
    assert costs[0] == costs[1]
