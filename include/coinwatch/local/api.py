"""Airflow's REST API, as far as a local run needs it."""

from typing import Any
from urllib.parse import quote

import requests

from coinwatch.local.errors import RunError
from coinwatch.local.home import USER

TIMEOUT = 10
"""Seconds for an answer; on a busy machine the first ones are slow."""


class NotAnswering(Exception):
    """The server is not there yet, or too busy now; it may answer later."""


class AirflowApi:
    """The API of one Airflow on this machine.

    Args:
        url: Where it serves, without a path.
        password: Of the user ``admin``.
    """

    def __init__(self, url: str, password: str) -> None:
        self._url = url
        self._password = password
        self._session = requests.Session()
        # No proxy, no .netrc: it is this machine.
        self._session.trust_env = False

    def health(self) -> dict[str, str]:
        """The state of each part of Airflow by its name; ``healthy`` is good.

        Raises:
            NotAnswering: There is nobody to ask yet.
        """
        content = self._ask("GET", "/api/v2/monitor/health")
        return {name: (part or {}).get("status") or "not there yet" for name, part in content.items()}

    def log_in(self) -> None:
        """Get a token for everything that follows.

        Raises:
            NotAnswering: Ask again later.
            RunError: The password is not taken.
        """
        content = self._ask("POST", "/auth/token", json={"username": USER, "password": self._password})
        self._session.headers["Authorization"] = f"Bearer {content['access_token']}"

    def import_errors(self) -> dict[str, str]:
        """Why Dag files could not be read, by file."""
        content = self._ask("GET", "/api/v2/importErrors")
        return {str(error["filename"]): str(error["stack_trace"]) for error in content["import_errors"]}

    def dags(self) -> dict[str, bool]:
        """The Dags that Airflow knows, and whether each is paused."""
        return {dag["dag_id"]: dag["is_paused"] for dag in self._ask("GET", "/api/v2/dags", limit=100)["dags"]}

    def switch_on(self, dag_id: str) -> None:
        """Have a Dag run."""
        self._ask("PATCH", f"/api/v2/dags/{dag_id}", json={"is_paused": False}, update_mask="is_paused")

    def trigger(self, dag_id: str) -> dict[str, Any]:
        """Start a run as of now."""
        return self._ask("POST", f"/api/v2/dags/{dag_id}/dagRuns", json={"logical_date": None})

    def latest_runs(self, dag_id: str) -> list[dict[str, Any]]:
        """The newest runs of a Dag, newest first."""
        runs: list[dict[str, Any]] = self._ask(
            "GET", f"/api/v2/dags/{dag_id}/dagRuns", order_by="-run_after", limit=20
        )["dag_runs"]
        return runs

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The task instances of a run."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances"
        tasks: list[dict[str, Any]] = self._ask("GET", path, limit=100)["task_instances"]
        return tasks

    def _ask(self, method: str, path: str, json: Any = None, **query: Any) -> dict[str, Any]:
        try:
            response = self._session.request(method, self._url + path, json=json, params=query, timeout=TIMEOUT)
        except requests.RequestException as error:
            raise NotAnswering(f"{method} {path}: {type(error).__name__}") from None
        if response.status_code >= 500:
            raise NotAnswering(f"{method} {path}: {response.status_code}")
        if not response.ok:
            raise RunError(f"Airflow answered {response.status_code} to {method} {path}: {response.text[:300]}")
        content: dict[str, Any] = response.json()
        return content
