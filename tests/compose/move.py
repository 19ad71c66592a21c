"""`make test-move`: backup, restore and an upgrade of Airflow, done as docs/operations.md says.

A stack with an older Airflow processes an hour. Another stack, in another folder and with today's Airflow, restores its
backup: everything has to be there, and the next hour has to be processed.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from run import check_nothing_is_lost, password_of, stored, trigger_an_hour, wait_for_history
from stack import PROJECT, SERVICES, Stack, check, run_with_stacks, say, step

TAR = "run --rm --no-deps -T --entrypoint tar prepare"


def test(new_stack: Callable[[str], Stack]) -> None:
    """Move a stack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--older", default="3.3.1", help="version of Airflow to come from")
    parser.add_argument("--released", default="2026-08-13", help="day whose packages go with it")
    parser.add_argument("--botocore", default="<1.43.57", help="the version that its image's aiobotocore needs")
    options = parser.parse_args()
    old = new_stack("old")
    backup = old.folder.parent / "backup"
    backup.mkdir()
    with step(f"build with Airflow {options.older}", old):
        _change_airflow(old.folder, options)
        old.compose("build", limit=900)
    with step("start it", old, "prepare", "init", *SERVICES):
        old.up()
    password = password_of(old)
    old.log_in(password)
    check(old.get("/api/v2/version")["version"] == options.older, f"this is not Airflow {options.older}")
    with step("an hour", old, "scheduler"):
        wait_for_history(old, 300)
        trigger_an_hour(old)
    before = _moved(old)
    with step("backup", old):
        for name in ("airflow", "warehouse"):
            dump = f"exec -T postgres pg_dump -U postgres --format custom {name}_sandbox"
            _shell(old, f"{dump} > {backup}/{name}.dump")
        _shell(old, f"{TAR} -C /run/coinwatch/secrets -cf - . > {backup}/secrets.tar")
        _shell(old, f"{TAR} -C /opt/airflow -cf - data > {backup}/data.tar")
    old.down()

    new = new_stack("new")
    with step("restore in another folder, with today's version", new):
        new.compose("build", limit=900)
        _shell(new, f"{TAR} -C /run/coinwatch/secrets -xf - < {backup}/secrets.tar")
        _shell(new, f"{TAR} -C /opt/airflow -xf - < {backup}/data.tar")
        new.compose("run", "--rm", "init", "databases", limit=300)
        for name in ("airflow", "warehouse"):
            restore = f"exec -T postgres pg_restore -U postgres --exit-on-error --dbname {name}_sandbox"
            _shell(new, f"{restore} < {backup}/{name}.dump")
    with step("start it", new, "prepare", "init", *SERVICES):
        new.up()
    with step("everything is there, and the next hour comes", new, "scheduler"):
        new.log_in(password)
        check_nothing_is_lost(before, _moved(new))
        check(password not in new.logs("init"), "init showed the password again")
        trigger_an_hour(new)


def _moved(stack: Stack) -> dict[str, int]:
    """What a backup contains: all but the sandbox's own memory."""
    counts = {what: count for what, count in stored(stack).items() if what not in {"objects", "messages"}}
    say(f"  {counts}")
    return counts


def _shell(stack: Stack, command: str) -> None:
    """Run `docker compose …` with a redirection, as the guide has it."""
    shell = ["/bin/sh", "-euc", f"docker compose {command}"]
    done = subprocess.run(
        shell, cwd=stack.folder, env=stack.environ, check=False, stderr=subprocess.PIPE, text=True, timeout=300
    )
    check(not done.returncode, f"`docker compose {command}` failed: {done.stderr}")


def _change_airflow(folder: Path, options: argparse.Namespace) -> None:
    """Change the patch version, as the guide says."""
    for name, pattern, new in (
        ("pyproject.toml", r"apache-airflow==[\d.]+", f"apache-airflow=={options.older}"),
        ("pyproject.toml", r'exclude-newer = "[^T]+', f'exclude-newer = "{options.released}'),
        ("pyproject.toml", r'"botocore[<>=\d.]+"', f'"botocore{options.botocore}"'),
        ("Dockerfile", r"apache/airflow:[\d.]+-", f"apache/airflow:{options.older}-"),
    ):
        path = folder / name
        path.write_text(re.sub(pattern, new, path.read_text()))
    # The tools of this project's environment serve the copy, too.
    (folder / ".venv").symlink_to(PROJECT / ".venv")
    for lock in folder.glob("requirements*.txt"):
        lock.write_text("")
    subprocess.run(["/usr/bin/make", "lock"], cwd=folder, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(run_with_stacks("coinwatch-move", test))
