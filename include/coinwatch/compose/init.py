"""`init`, which runs once PostgreSQL is healthy: creates databases, user and pool, and triggers the first hour.

Every step may be repeated: what exists stays as it is.
"""

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from coinwatch.compose.prepare import SECRETS, say
from coinwatch.errors import CoinwatchError

USER = "admin"
FIRST_DAG = "ingest_prices"


def init(environ: Mapping[str, str]) -> None:
    """Bring everything to where Airflow's services can start."""
    check_broker(environ)
    create_databases(environ)
    run("migrate Airflow's database", ["airflow", "db", "migrate"])
    migrate_warehouse()
    login = create_user(environ)
    create_pool()
    if not has_run(FIRST_DAG):
        # The schedule would begin with the last full hour, from history; this brings a live price at once.
        run("read the Dags", ["airflow", "dags", "reserialize"])
        run(f"trigger {FIRST_DAG} for the first hour", ["airflow", "dags", "trigger", FIRST_DAG])
    say(f"Airflow: {environ.get('AIRFLOW__API__BASE_URL', 'http://localhost:8080')}, log in as {USER} with {login}")


def check_broker(environ: Mapping[str, str]) -> None:
    """Check that executor and profile agree: Celery needs Redis, and without Celery Redis has nothing to do."""
    celery, redis = environ.get("AIRFLOW__CORE__EXECUTOR") == "CeleryExecutor", _answers("redis", 6379)
    if celery and not redis:
        raise CoinwatchError("AIRFLOW__CORE__EXECUTOR=CeleryExecutor needs Redis and workers: add --profile celery")
    if redis and not celery:
        raise CoinwatchError(
            "the profile celery needs AIRFLOW__CORE__EXECUTOR=CeleryExecutor in .env: without it the workers idle"
        )


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def create_databases(environ: Mapping[str, str]) -> None:
    """Create roles and databases; set the roles' current passwords."""
    names = ("AIRFLOW_DB_PASSWORD", "WAREHOUSE_PASSWORD", "ANALYST_PASSWORD")
    secrets = {name: _secret(name) for name in names} | {"PGPASSWORD": _secret("POSTGRES_PASSWORD")}
    script = Path(__file__).with_name("databases.sql")
    psql = ["psql", "--no-psqlrc", "--quiet", "--output=/dev/null", "--host=postgres", "--username=postgres"]
    hint = (
        ". If it says `password authentication failed`, PostgreSQL's volume is older than the secrets: set "
        "POSTGRES_PASSWORD in .env and run docker compose exec postgres psql -U postgres -c '\\password'"
    )
    run("create roles and databases", [*psql, f"--file={script}"], environ={**environ, **secrets}, hint=hint)


def _secret(name: str) -> str:
    return (SECRETS / name).read_text()


def run(what: str, command: list[str], *, environ: Mapping[str, str] | None = None, hint: str = "") -> None:
    """Run a command; if it fails, show the end of its output and raise."""
    done = subprocess.run(  # noqa: S603 - fixed commands
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        for line in done.stdout.splitlines()[-40:]:
            say(f"  {line}")
        raise CoinwatchError(f"could not {what} (exit status {done.returncode}): see the output above{hint}")
    say(f"{what}: done")


def migrate_warehouse() -> None:
    """Bring the warehouse's schema up to date, whichever database `warehouse_default` names."""
    from coinwatch.app import App

    App().warehouse.dispose()


def create_user(environ: Mapping[str, str]) -> str:
    """Create the user, or set the password that `.env` has; return where to find the password."""
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    chosen, password = environ.get("ADMIN_PASSWORD"), _secret("ADMIN_PASSWORD")
    with get_application_builder() as builder:
        manager = builder.sm
        user = manager.find_user(username=USER)
        if user is None:
            role = manager.find_role("Admin")
            if not manager.add_user(USER, "Coinwatch", "Admin", f"{USER}@localhost.invalid", role, password):
                raise CoinwatchError(f"Airflow did not create the user {USER}, without saying why")
        elif chosen:
            manager.reset_password(user.id, password)
    if chosen:
        return "ADMIN_PASSWORD of .env"
    if user:
        return "the password of the first start; if it is lost, set ADMIN_PASSWORD in .env"
    # At once: the next start does not show it again, even if a later step fails.
    say(f"password of {USER}: {password}   <- generated and shown only once: keep it")
    return "the password above"


def create_pool() -> None:
    """Create the pool for requests to CoinGecko; an existing one keeps its size."""
    from airflow.models.pool import Pool

    from coinwatch.tasks import COINGECKO_POOL

    if Pool.get_pool(COINGECKO_POOL) is None:
        Pool.create_or_update_pool(COINGECKO_POOL, 2, "Requests to CoinGecko", include_deferred=False)


def has_run(dag_id: str) -> bool:
    """Return whether the Dag has a run."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import exists, select

    with create_session() as session:
        return bool(session.scalar(select(exists().where(DagRun.dag_id == dag_id))))


def main() -> int:
    """Run `init`, or only `init databases` (before a restore); return the exit status."""
    # Warnings of libraries would hide the password.
    logging.disable(logging.WARNING)
    step = create_databases if sys.argv[1:] == ["databases"] else init
    try:
        step(os.environ)
    except CoinwatchError as error:
        sys.stderr.write(f"coinwatch: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
