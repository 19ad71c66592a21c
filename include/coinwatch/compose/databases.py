"""PostgreSQL's roles and databases, for Airflow, for the warehouse, and for those who query it."""

from collections.abc import Mapping

import psycopg
from psycopg import sql

OWNERS = {"airflow": "airflow", "warehouse": "coinwatch"}
"""Each database's owner, by what it is for."""

ANALYST = "analyst"
"""May read the warehouse, and nothing else."""

ANALYST_SECONDS = 120
"""No query of an analyst takes longer, so that a forgotten one does not hold up those of the pipeline for ever."""


def make_databases(server: str, passwords: Mapping[str, str], names: Mapping[str, str]) -> None:
    """Make what is missing, and give each role its password of now; may be repeated at any time.

    Args:
        server: How a superuser reaches the server (a libpq connection string).
        passwords: By role: `airflow`, `coinwatch` and `analyst`.
        names: The databases' names, by what they are for: `airflow` and `warehouse`.
    """
    with psycopg.connect(server, autocommit=True) as connection:
        known = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles")}
        for role, password in passwords.items():
            verb = sql.SQL("ALTER" if role in known else "CREATE")
            connection.execute(
                sql.SQL("{} ROLE {} LOGIN PASSWORD {}").format(verb, sql.Identifier(role), sql.Literal(password))
            )
        connection.execute(
            sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(sql.Identifier(ANALYST))
        )
        connection.execute(
            sql.SQL("ALTER ROLE {} SET statement_timeout = {}").format(
                sql.Identifier(ANALYST), sql.Literal(f"{ANALYST_SECONDS}s")
            )
        )
        known = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
        for purpose, name in names.items():
            database, owner = sql.Identifier(name), sql.Identifier(OWNERS[purpose])
            if name not in known:
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, owner))
            # Otherwise everybody may connect, and make temporary tables.
            connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
        warehouse = sql.Identifier(names["warehouse"])
        connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(warehouse, sql.Identifier(ANALYST)))
    with psycopg.connect(server, dbname=names["warehouse"], autocommit=True) as connection:
        for statement in (
            "GRANT USAGE ON SCHEMA public TO {analyst}",
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {analyst}",
            # What later versions add.
            "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT SELECT ON TABLES TO {analyst}",
        ):
            connection.execute(
                sql.SQL(statement).format(analyst=sql.Identifier(ANALYST), owner=sql.Identifier(OWNERS["warehouse"]))
            )
