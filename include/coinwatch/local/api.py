"""Airflow's REST API, as far as a local run needs it."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import requests

from coinwatch.errors import CoinwatchError
from coinwatch.local.environment import USER

TIMEOUT = 10
"""Seconds for an answer; the first ones of a busy machine are slow."""


class AirflowApi:
    """The API of an Airflow on this machine. A request is repeated until there is an answer.

    Args:
        url: Its scheme, host and port.
        pause: Called with what is waited for, before each new try; it raises to give up.
    """

    def __init__(self, url: str, pause: Callable[[str], None]) -> None:
        self._url = url
        self._pause = pause
        self._session = requests.Session()
        # On loopback neither a proxy nor a .netrc applies.
        self._session.trust_env = False

    def log_in(self, password: str) -> None:
        """Use the token of the user ``admin`` from now on."""
        content = self._ask("POST", "/auth/token", {"username": USER, "password": password})
        self._session.headers["Authorization"] = f"Bearer {content['access_token']}"

    def import_errors(self) -> dict[str, str]:
        """Return the traceback of each Dag file that Airflow cannot import."""
        errors = self._ask("GET", "/api/v2/importErrors")["import_errors"]
        return {error["filename"]: error["stack_trace"] for error in errors}

    def dags(self) -> dict[str, bool]:
        """Return the ids of the Dags that Airflow knows, and whether each is paused."""
        return {dag["dag_id"]: dag["is_paused"] for dag in self._ask("GET", "/api/v2/dags", limit=100)["dags"]}

    def unpause(self, dag_id: str) -> None:
        """Switch a Dag on."""
        self._ask("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": False}, update_mask="is_paused")

    def trigger(self, dag_id: str) -> Any:
        """Trigger a run as of now and return it."""
        return self._ask("POST", f"/api/v2/dags/{dag_id}/dagRuns", {"logical_date": None})

    def latest_runs(self, dag_id: str) -> Any:
        """Return the latest runs of a Dag, the newest first."""
        return self._ask("GET", f"/api/v2/dags/{dag_id}/dagRuns", order_by="-run_after", limit=20)["dag_runs"]

    def tasks(self, dag_id: str, run_id: str) -> Any:
        """Return the task instances of a run."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances"
        return self._ask("GET", path, limit=100)["task_instances"]

    def _ask(self, method: str, path: str, body: object = None, **query: str | int) -> Any:
        while True:
            try:
                response = self._session.request(method, self._url + path, json=body, params=query, timeout=TIMEOUT)
            except requests.RequestException as error:
                problem = type(error).__name__
            else:
                if response.ok:
                    return response.json()
                problem = f"HTTP {response.status_code}"
                if response.status_code < 500:
                    raise CoinwatchError(f"Airflow's API: {method} {path}: {problem}: {response.text[:300]}")
            self._pause(f"Airflow's API ({method} {path}: {problem})")
