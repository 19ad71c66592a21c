"""The shape of the Dags as a text that a reviewer can read; a change of the wiring changes graph.txt."""

from pathlib import Path

SNAPSHOT = Path(__file__).with_name("graph.txt")


def draw(dag_bag, consumed):
    lines = []
    for dag_id, dag in sorted(dag_bag.dags.items()):
        lines.append(f"{dag_id}: {' | '.join(consumed[dag_id]) or dag.schedule or 'by hand'}")
        for task in dag.topological_sort():
            mapped = " (mapped)" if task.is_mapped else ""
            after = f" after {', '.join(sorted(task.upstream_task_ids))}" if task.upstream_task_ids else ""
            outlets = f" -> {', '.join(asset.name for asset in task.outlets)}" if task.outlets else ""
            lines.append(f"  {task.task_id}{mapped}{after}{outlets}")
    return "\n".join(lines) + "\n"


def test_the_wiring_is_the_one_that_was_reviewed(dag_bag, consumed):
    assert draw(dag_bag, consumed) == SNAPSHOT.read_text(), "if this is meant, write the new drawing into graph.txt"
