"""The Dags are parsed once for all tests."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

DAGS = Path(__file__).resolve().parents[2] / "dags"


@pytest.fixture(scope="session")
def dag_folder() -> Path:
    """The folder of the Dag files."""
    return DAGS


@pytest.fixture(scope="session")
def dag_bag() -> Iterator[object]:
    """All Dags as the Dag processor sees them; a warning at parse is an error."""
    from airflow.dag_processing.dagbag import DagBag

    with warnings.catch_warnings(record=True) as caught:
        bag = DagBag(DAGS)
    assert [str(warning.message) for warning in caught] == []
    assert bag.import_errors == {}
    return bag


@pytest.fixture(scope="session")
def consumed(dag_bag):
    """The names of the assets that start each Dag."""
    schedules = {dag_id: dag.schedule if isinstance(dag.schedule, list) else [] for dag_id, dag in dag_bag.dags.items()}
    return {dag_id: [asset.name for asset in assets] for dag_id, assets in schedules.items()}
