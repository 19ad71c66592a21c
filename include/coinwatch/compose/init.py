"""`init`, which runs once PostgreSQL is there: databases, migrations, the user, settings, and the first hour.

Everything may be repeated: what is there already is left as it is.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from coinwatch.compose import layout
from coinwatch.compose.databases import ANALYST, OWNERS, make_databases
from coinwatch.compose.output import say
from coinwatch.local.airflow_settings import at_host, load_into_airflow, read_airflow_settings
from coinwatch.local.errors import RunError, WrongInput
from coinwatch.settings import WAREHOUSE_CONN_ID

USER = "admin"

FIRST_DAG = "ingest_prices"


def init(environ: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Bring everything to where Airflow's parts can start.

    Args:
        environ: What docker-compose.yaml says.
        say: Tells whoever reads the log.

    Raises:
        RunError: A step failed; the message says which and why.
    """
    sandbox = (layout.AIRFLOW / "mode").read_text() == "sandbox"
    _check_broker(environ)
    names = make_our_databases(sandbox=sandbox)
    _run("the migration of Airflow's database", ["airflow", "db", "migrate"], say)
    _migrate_warehouse(names["warehouse"])
    new_user = _make_user(_read("admin_password"), change=_password_is_told())
    if new_user and not _password_is_told():
        # At once: whatever fails after this, nobody is told again.
        say(f"password of {USER}: {_read('admin_password')}   <- made for you, and never shown again: keep it")
    _load_settings(sandbox=sandbox, warehouse=names["warehouse"], say=say)
    if not _has_run(FIRST_DAG):
        # The clock would begin with the last full hour, from history; a live price shall be there at once.
        _run("reading the Dags", ["airflow", "dags", "reserialize"], say)
        _run(f"triggering {FIRST_DAG} for the first hour", ["airflow", "dags", "trigger", FIRST_DAG], say)
    _say_where(environ, new_user=new_user, say=say)


def make_our_databases(*, sandbox: bool) -> dict[str, str]:
    """Make the databases and roles of this stack, with the passwords of now.

    Returns:
        The databases' names, by what they are for.

    Raises:
        RunError: PostgreSQL does not let us in; the message says what to do.
    """
    import psycopg

    names = {of: layout.database(of, sandbox=sandbox) for of in OWNERS}
    passwords = {
        "airflow": _read("airflow_password"),
        OWNERS["warehouse"]: _read("warehouse_password"),
        ANALYST: _read("analyst_password"),
    }
    server = f"host=postgres user=postgres password={_read('postgres_password')} dbname=postgres connect_timeout=10"
    try:
        make_databases(server, passwords, names)
    except psycopg.OperationalError as error:
        raise RunError(
            f"PostgreSQL does not let init in ({' '.join(str(error).split())}). If its volume is older than the "
            "secrets, set POSTGRES_PASSWORD in .env, and tell PostgreSQL the same: "
            "docker compose exec postgres psql -U postgres -c '\\password'"
        ) from None
    return names


def _read(name: str) -> str:
    return (layout.INIT / name).read_text()


def _password_is_told() -> bool:
    return _read("admin_password_from") == ".env"


def _check_broker(environ: Mapping[str, str]) -> None:
    celery = environ.get("AIRFLOW__CORE__EXECUTOR") == "CeleryExecutor"
    redis = layout.is_there(layout.REDIS_HOST)
    if celery and not redis:
        raise WrongInput("AIRFLOW__CORE__EXECUTOR=CeleryExecutor needs Redis and workers: add --profile celery")
    if redis and not celery:
        raise WrongInput(
            "the profile celery needs AIRFLOW__CORE__EXECUTOR=CeleryExecutor in .env; without it the workers idle"
        )


def _run(what: str, command: list[str], say: Callable[[str], None]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)  # noqa: S603 - our own commands
    if done.returncode:
        for line in done.stdout.splitlines()[-40:]:
            say(f"  {line}")
        raise RunError(f"{what} failed, with status {done.returncode}: its last words stand above")
    say(f"{what}: done")


def _warehouse_url(database: str) -> str:
    return f"postgresql+psycopg://{OWNERS['warehouse']}:{_read('warehouse_password')}@postgres/{database}"


def _migrate_warehouse(database: str) -> None:
    from coinwatch.warehouse.engine import open_warehouse

    open_warehouse(_warehouse_url(database)).dispose()


def _make_user(password: str, *, change: bool) -> bool:
    """Make the user, or give it the password of `.env`.

    Returns:
        Whether it is new.
    """
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    with get_application_builder() as builder:
        manager = builder.sm
        user = manager.find_user(username=USER)
        if user is None:
            role = manager.find_role("Admin")
            if not manager.add_user(USER, "Coinwatch", "Admin", f"{USER}@localhost.invalid", role, password):
                raise RunError(f"the user {USER} could not be made: Airflow says no more than that")
            return True
        if change:
            manager.reset_password(user.id, password)
        return False


def _load_settings(*, sandbox: bool, warehouse: str, say: Callable[[str], None]) -> None:
    settings = read_airflow_settings(Path("/opt/airflow/airflow_settings.yaml"))
    new = load_into_airflow(at_host(settings, layout.SANDBOX_HOST), with_connections=sandbox)
    _connect_warehouse(warehouse, new)
    for kind, names in new.items():
        if names:
            say(f"new {kind}: {', '.join(names)}")


def _connect_warehouse(database: str, new: dict[str, list[str]]) -> None:
    """Make the connection, or bring the password of ours up to date; another one is somebody's own."""
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import select

    ours = {"conn_type": "postgres", "host": "postgres", "login": OWNERS["warehouse"], "schema": database}
    with create_session() as session:
        known = session.scalars(select(Connection).where(Connection.conn_id == WAREHOUSE_CONN_ID)).one_or_none()
        if known is None:
            session.add(Connection(conn_id=WAREHOUSE_CONN_ID, password=_read("warehouse_password"), **ours))  # type: ignore[arg-type]  # Airflow's model
            new["connections"].append(WAREHOUSE_CONN_ID)
        elif all(getattr(known, name) == value for name, value in ours.items()):
            known.set_password(_read("warehouse_password"))


def _has_run(dag_id: str) -> bool:
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import exists, select

    with create_session() as session:
        return bool(session.scalar(select(exists().where(DagRun.dag_id == dag_id))))


def _say_where(environ: Mapping[str, str], *, new_user: bool, say: Callable[[str], None]) -> None:
    if _password_is_told():
        which = "ADMIN_PASSWORD of .env"
    elif new_user:
        which = "the password above"
    else:
        which = "the password of the first start; forgotten: set ADMIN_PASSWORD in .env"
    say(f"Airflow will be at {environ.get('AIRFLOW__API__BASE_URL', 'http://localhost:8080')}")
    say(f"log in as {USER} with {which}")


def main() -> int:
    """What the container runs.

    Returns:
        Exit status: 2 if something was asked for that cannot be, 1 if something else went wrong.
    """
    # What a library has to say of its own is no news to whoever waits for a password.
    logging.disable(logging.WARNING)
    try:
        if sys.argv[1:] == ["databases"]:
            # Before a backup is restored into them.
            make_our_databases(sandbox=(layout.AIRFLOW / "mode").read_text() == "sandbox")
        else:
            init(os.environ, say)
    except RunError as error:
        sys.stderr.write(f"coinwatch: {error}\n")
        return error.status
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
