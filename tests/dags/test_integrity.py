"""What holds for every Dag, whatever it does."""

import ast
import json
import subprocess
import sys

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization

from coinwatch.tasks import COINGECKO_POOL, DEFAULT_ARGS, START_DATE, TAGS

HEAVY = ("alembic", "boto3", "botocore", "moto", "numpy", "pandas", "requests", "slack_sdk")


BY_HAND = {"manage_alerts", "review_quarantine", "upload_processed_csv_to_s3"}
BY_CLOCK = {"ingest_prices", "watch_feed"}
BY_ASSET = {"heal_history", "process_prices"}


@pytest.fixture(params=sorted(BY_HAND | BY_CLOCK | BY_ASSET))
def dag(request, dag_bag):
    return dag_bag.dags[request.param]


def test_every_dag_file_holds_the_one_dag_that_it_is_named_after(dag_bag, dag_folder):
    assert {dag_id: dag.fileloc for dag_id, dag in dag_bag.dags.items()} == {
        path.stem: str(path) for path in dag_folder.glob("*.py")
    }


def test_a_dag_explains_itself_to_the_operator(dag):
    assert "**When it fails**" in dag.doc_md
    assert "**Safe to run again:**" in dag.doc_md
    assert "**Started**" in dag.doc_md


def test_tags_come_from_the_closed_list(dag):
    assert dag.tags
    assert dag.tags <= set(TAGS)


def test_nothing_of_the_schedule_is_left_to_a_default(dag):
    assert dag.start_date == START_DATE
    assert dag.catchup is False
    assert dag.max_active_runs == 1
    assert (dag.schedule is None) == (dag.dag_id in BY_HAND)


def test_every_task_has_a_sentence_and_the_common_defaults(dag):
    for task in dag.tasks:
        function = task.python_callable if hasattr(task, "python_callable") else task.partial_kwargs["python_callable"]
        assert function.__doc__.endswith("."), task.task_id
        assert function.__name__ == task.task_id
        assert task.owner == "coinwatch"
        assert task.retries == DEFAULT_ARGS["retries"]
        assert task.retry_policy is DEFAULT_ARGS["retry_policy"]
        assert task.execution_timeout == DEFAULT_ARGS["execution_timeout"]
        name = "on_failure_callback"
        given = getattr(task, name) if hasattr(task, name) else task.partial_kwargs[name]
        assert given in (DEFAULT_ARGS[name], [DEFAULT_ARGS[name]])


def test_every_asset_that_is_consumed_is_produced(dag_bag, consumed):
    outlets = {outlet.name for dag in dag_bag.dags.values() for task in dag.tasks for outlet in task.outlets}
    assert consumed["process_prices"] == ["raw_prices"]
    assert consumed["heal_history"] == ["missing_hours"]
    # An outlet that is an alias has an event on its asset only now and then.
    assert outlets == {"raw_prices", "processed_prices", "gaps_found", "prices_released", "s3_uploaded"}


def test_only_tasks_that_send_requests_to_coingecko_use_its_pool_and_the_live_poll_is_first(dag_bag):
    tasks = [task for dag in dag_bag.dags.values() for task in dag.tasks]
    pooled = {task.task_id: task.priority_weight for task in tasks if task.pool == COINGECKO_POOL}
    assert pooled == {"fetch_prices": 100, "fetch_history": 1}


def test_two_parses_are_equal(dag_bag, dag_folder):
    again = DagBag(dag_folder)
    for dag_id, dag in dag_bag.dags.items():
        first, second = (
            json.dumps(DagSerialization.to_dict(each), sort_keys=True) for each in (dag, again.dags[dag_id])
        )
        assert first == second


def test_nothing_heavy_is_imported_at_parse(dag_folder):
    script = (
        "import runpy, sys\n"
        "import airflow.sdk, pendulum\n"
        "before = set(sys.modules)\n"
        "for path in sys.argv[1:]: runpy.run_path(path)\n"
        f"print([name for name in {HEAVY!r} if name in set(sys.modules) - before])\n"
    )
    files = sorted(map(str, dag_folder.glob("*.py")))
    done = subprocess.run([sys.executable, "-c", script, *files], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_dag_file_is_wiring_only(dag_folder):
    for path in dag_folder.glob("*.py"):
        source = path.read_text()
        assert len(source.splitlines()) <= 80, path
        functions = [
            node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef) and node.decorator_list
        ]
        # A task is its sentence and one call, and where it needs one the run's context.
        tasks = [node for node in functions if node.name != path.stem]
        long = [
            node.name for node in tasks if len([part for part in node.body if not isinstance(part, ast.ImportFrom)]) > 4
        ]
        assert long == []
