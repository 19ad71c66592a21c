"""``airflow_settings.yaml``, in the Astro CLI's format: pools, variables and connections for Airflow's own database."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from coinwatch.local.errors import WrongInput


def _text(value: Any) -> Any:
    """YAML reads 8080 as a number; Airflow keeps texts."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _nothing_is_empty(value: Any) -> Any:
    """A key without a value, as the Astro CLI's template has them."""
    return [] if value is None else value


Text = Annotated[str, BeforeValidator(_text)]
Name = Annotated[Text, Field(min_length=1)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ConnectionEntry(_Entry):
    """A connection; either a URI, or its parts."""

    conn_id: Name
    conn_type: Text | None = None
    conn_host: Text | None = None
    conn_schema: Text | None = None
    conn_login: Text | None = None
    conn_password: Text | None = Field(None, repr=False)
    conn_port: int | None = None
    conn_uri: Text | None = Field(None, repr=False)
    conn_extra: dict[str, Any] | Text | None = Field(None, repr=False)

    @model_validator(mode="after")
    def _check(self) -> "ConnectionEntry":
        if not self.conn_type and not self.conn_uri:
            raise ValueError("conn_type is needed, or a conn_uri that has everything")
        if self.conn_uri and self.model_fields_set - {"conn_id", "conn_type", "conn_uri"} - self._empty():
            raise ValueError("conn_uri has everything: leave out the other fields")
        return self

    def _empty(self) -> set[str]:
        return {name for name in self.model_fields_set if not getattr(self, name)}

    @property
    def extra(self) -> str | None:
        """The extra as Airflow keeps it: JSON."""
        return json.dumps(self.conn_extra) if isinstance(self.conn_extra, dict) else self.conn_extra


class PoolEntry(_Entry):
    """A pool."""

    pool_name: Name
    pool_slot: int = Field(ge=0)
    pool_description: Text | None = None


class VariableEntry(_Entry):
    """A variable."""

    variable_name: Name
    variable_value: Text


class AirflowSettings(_Entry):
    """The file's content.

    Attributes:
        connections: By `make run` and Compose loaded for the sandbox only.
        pools: For everybody.
        variables: For everybody.
    """

    connections: Annotated[list[ConnectionEntry], BeforeValidator(_nothing_is_empty)] = []
    pools: Annotated[list[PoolEntry], BeforeValidator(_nothing_is_empty)] = []
    variables: Annotated[list[VariableEntry], BeforeValidator(_nothing_is_empty)] = []


class _File(_Entry):
    airflow: AirflowSettings


def read_airflow_settings(path: Path) -> AirflowSettings:
    """Read and check the file.

    Raises:
        WrongInput: It is missing, is no YAML or has a wrong entry; the message names entry, field and what is allowed,
            and no value, which may be a secret.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WrongInput(f"{path} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise WrongInput(f"{path} is no YAML: {error}") from None
    try:
        return _File.model_validate(content).airflow
    except ValidationError as error:
        problems = [f"{path}: {_place(problem['loc'])}: {_reason(problem)}" for problem in error.errors()]
        raise WrongInput("\n".join(problems)) from None


def _place(location: tuple[int | str, ...]) -> str:
    """``airflow.connections[1].conn_type``; counted from 1, as people do."""
    parts = [f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".") or "the file"


def _reason(problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        return "there is no such field"
    return str(problem["msg"]).removeprefix("Value error, ")


def load_into_airflow(settings: AirflowSettings, *, with_connections: bool) -> dict[str, list[str]]:
    """Write the entries into Airflow's metadata database, which AIRFLOW_HOME tells; what is there already stays.

    Args:
        settings: The entries.
        with_connections: Whether connections are written too.

    Returns:
        The names of what is new, by kind: ``pools``, ``variables`` and ``connections``.
    """
    from airflow.models.connection import Connection
    from airflow.models.pool import Pool
    from airflow.models.variable import Variable
    from airflow.utils.session import create_session
    from sqlalchemy import select

    new: dict[str, list[str]] = {"pools": [], "variables": [], "connections": []}
    with create_session() as session:
        known = set(session.scalars(select(Pool.pool)))
        for pool in settings.pools:
            if pool.pool_name not in known:
                session.add(
                    Pool(
                        pool=pool.pool_name,
                        slots=pool.pool_slot,
                        description=pool.pool_description or "",
                        include_deferred=False,
                    )
                )
                new["pools"].append(pool.pool_name)
        known = set(session.scalars(select(Variable.key)))
        for variable in settings.variables:
            if variable.variable_name not in known:
                session.add(Variable(key=variable.variable_name, val=variable.variable_value))  # type: ignore[no-untyped-call]  # Airflow's model
                new["variables"].append(variable.variable_name)
        known = set(session.scalars(select(Connection.conn_id)))
        for connection in settings.connections if with_connections else ():
            if connection.conn_id not in known:
                session.add(Connection(**_connection_fields(connection)))
                new["connections"].append(connection.conn_id)
    return new


def _connection_fields(entry: ConnectionEntry) -> dict[str, Any]:
    if entry.conn_uri:
        return {"conn_id": entry.conn_id, "uri": entry.conn_uri}
    return {
        "conn_id": entry.conn_id,
        "conn_type": entry.conn_type,
        "host": entry.conn_host,
        "schema": entry.conn_schema,
        "login": entry.conn_login,
        "password": entry.conn_password,
        "port": entry.conn_port,
        "extra": entry.extra,
    }


def at_host(settings: AirflowSettings, host: str) -> AirflowSettings:
    """The entries with another host in the place of loopback.

    Args:
        settings: The entries.
        host: Where the sandbox's services answer.
    """
    return AirflowSettings.model_validate_json(settings.model_dump_json().replace("127.0.0.1", host))


def connections_at_other_ports(settings: AirflowSettings, ports: Mapping[int, int]) -> dict[str, str]:
    """The connections as environment variables, which go before the database, with other ports on loopback.

    Args:
        settings: The entries.
        ports: The new port for each old one.

    Returns:
        ``AIRFLOW_CONN_*`` in JSON; empty if no port is another one.
    """
    if all(old == new for old, new in ports.items()):
        return {}

    def move(match: re.Match[str]) -> str:
        return f"{match[1]}{ports.get(int(match[2]), int(match[2]))}"

    return {
        f"AIRFLOW_CONN_{entry.conn_id.upper()}": re.sub(r"(127\.0\.0\.1:)(\d+)", move, _as_variable(entry))
        for entry in settings.connections
    }


def _as_variable(entry: ConnectionEntry) -> str:
    if entry.conn_uri:
        return entry.conn_uri
    fields = _connection_fields(entry)
    del fields["conn_id"]
    return json.dumps({name: value for name, value in fields.items() if value is not None})
