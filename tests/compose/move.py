"""`make test-move`: what docs/operations.md says of backup, restore and upgrade, done.

A stack with an older Airflow takes an hour in. Its backup is restored by another stack, in another folder, with the
Airflow of today: everything has to be there, and the next hour has to come.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from run import hour_by_hand, password_of, stored
from stack import PROJECT, Failed, Stack, check, copy_project, say, step

PARTS = ["api-server", "scheduler", "dag-processor", "triggerer"]


def main() -> int:
    """Do it all.

    Returns:
        0 if everything held.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--older", default="3.3.1", help="version of Airflow to come from")
    parser.add_argument("--released", default="2026-08-13", help="day whose packages go with it")
    parser.add_argument("--botocore", default="<1.43.57", help="the one that its image's aiobotocore asks for")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="coinwatch-move-"))
    stacks: list[Stack] = []
    status = 1
    try:
        _move(folder, stacks, options)
        status = 0
        say("everything held")
    except Failed as failure:
        say(f"FAILED: {failure}")
    finally:
        for stack in stacks:
            stack.end()
        shutil.rmtree(folder, ignore_errors=True)
    return status


def _move(folder: Path, stacks: list[Stack], options: argparse.Namespace) -> None:
    older = options.older
    backup = folder / "backup"
    backup.mkdir()
    old = _stack(folder / "old", stacks)
    with step(f"changing it to Airflow {older}", old):
        _change_airflow(old.folder, options)
        old.compose("build", limit=900)
    with step(f"starting with Airflow {older}", old, "prepare", "init", *PARTS):
        old.up()
    password = password_of(old)
    old.log_in(password)
    check(holds=old.get("/api/v2/version")["version"] == older, otherwise=f"this is not Airflow {older}")
    with step("an hour", old, "scheduler"):
        hour_by_hand(old)
    before = stored(old, with_sandbox=False)
    say(f"  {before}")
    with step("backup", old):
        for name in ("airflow", "warehouse"):
            command = f"exec -T postgres pg_dump -U postgres --format custom {name}_sandbox > {backup}/{name}.dump"
            _shell(old, command)
        _shell(old, f"{_TAR} -C /run/coinwatch/kept -cf - . > {backup}/secrets.tar")
        _shell(old, f"{_TAR} -C /opt/airflow -cf - data > {backup}/data.tar")
    old.end()

    new = _stack(folder / "new", stacks)
    with step("restore in another place, with today's version", new):
        new.compose("build", limit=900)
        _shell(new, f"{_TAR} -C /run/coinwatch/kept -xf - < {backup}/secrets.tar")
        _shell(new, f"{_TAR} -C /opt/airflow -xf - < {backup}/data.tar")
        new.compose("run", "--rm", "init", "databases", limit=300)
        for name in ("airflow", "warehouse"):
            restore = f"pg_restore -U postgres --exit-on-error --dbname {name}_sandbox"
            _shell(new, f"exec -T postgres {restore} < {backup}/{name}.dump")
    with step("starting it", new, "prepare", "init", *PARTS):
        new.up()
    with step("everything is there, and the next hour comes", new, "scheduler"):
        new.log_in(password)
        now = stored(new, with_sandbox=False)
        say(f"  {now}")
        lost = {what: (count, now[what]) for what, count in before.items() if now[what] < count}
        check(holds=not lost, otherwise=f"less than before: {lost}")
        check(holds=password not in new.logs("init"), otherwise="init showed the password again")
        hour_by_hand(new)


_TAR = "run --rm --no-deps -T --entrypoint tar prepare"


def _stack(folder: Path, stacks: list[Stack]) -> Stack:
    copy_project(folder)
    stacks.append(Stack(folder, f"coinwatch-move-{folder.name}-{os.getpid()}"))
    stacks[-1].profiles = ["sandbox"]
    return stacks[-1]


def _shell(stack: Stack, command: str) -> None:
    """Run `docker compose …` with a redirection, as the guide has it."""
    done = subprocess.run(
        ["/bin/sh", "-euc", f"docker compose --profile sandbox {command}"],
        cwd=stack.folder,
        env=stack.environ,
        check=False,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    check(holds=not done.returncode, otherwise=f"`docker compose {command}` failed: {done.stderr}")


def _change_airflow(folder: Path, options: argparse.Namespace) -> None:
    """What the guide says of a patch version."""
    version = options.older
    for name, pattern, new in (
        ("pyproject.toml", r"apache-airflow==[\d.]+", f"apache-airflow=={version}"),
        ("pyproject.toml", r'exclude-newer = "[^T]+', f'exclude-newer = "{options.released}'),
        ("pyproject.toml", r'"botocore[<>=\d.]+"', f'"botocore{options.botocore}"'),
        ("Dockerfile", r"apache/airflow:[\d.]+-", f"apache/airflow:{version}-"),
    ):
        path = folder / name
        path.write_text(re.sub(pattern, new, path.read_text()))
    # The tools of the project's own environment do for a copy, too.
    (folder / ".venv").symlink_to(PROJECT / ".venv")
    for lock in folder.glob("requirements*.txt"):
        lock.write_text("")
    subprocess.run(["/usr/bin/make", "lock"], cwd=folder, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
