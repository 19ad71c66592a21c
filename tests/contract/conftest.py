"""What the pipeline leaves after two hours."""

from types import SimpleNamespace

import pytest
from world import Clock, worlds

from coinwatch.s3.uploads import upload_latest
from coinwatch.times import HOUR


@pytest.fixture(scope="session")
def two_hours(tmp_path_factory, new_sqlite):
    """The data folder's files, the objects on S3, and the times in the warehouse, for tests that only read them."""
    folder, clock = tmp_path_factory.mktemp("contract"), Clock()
    with worlds(folder, clock, lambda name: new_sqlite(folder / name / "warehouse.db")) as make_world:
        world = make_world(s3_prefix="some/prefix", history_days=2)
        world.run()
        clock.now += HOUR
        world.run()
        upload_latest(world.app())
        times = [ts for (ts,) in world.rows("prices", "ts")]
        yield SimpleNamespace(files=world.files(), objects=world.objects(), times=times, settings=world.settings)
