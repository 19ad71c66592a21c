"""A stack under a name of its own, from a clean copy of the project; nothing of it is left at the end."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

PROJECT = Path(__file__).resolve().parents[2]
DOCKER = shutil.which("docker") or "docker"
BEGAN = time.monotonic()

SERVICES = ["api-server", "scheduler", "dag-processor", "triggerer"]
"""Airflow's services that keep running."""


class Failed(Exception):
    """Something expected did not happen."""


def say(text: str) -> None:
    """Write a line of progress, with the seconds since the start."""
    sys.stdout.write(f"{time.monotonic() - BEGAN:6.0f} s  {text}\n")
    sys.stdout.flush()


def check(holds: object, otherwise: str) -> None:
    """Fail unless something holds."""
    if not holds:
        raise Failed(otherwise)


def wait_for(what: str, condition: Callable[[], Any], limit: float, every: float = 2) -> Any:
    """Return the first truthy value of a condition.

    Raises:
        Failed: It took longer than the limit.
    """
    deadline = time.monotonic() + limit
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise Failed(f"no {what} within {limit:.0f} s")
        time.sleep(every)
    return found


def run_with_stacks(prefix: str, test: Callable[[Callable[[str], "Stack"]], None]) -> int:
    """Run a test that starts stacks by name, and remove everything that it made; return the exit status."""
    folder = Path(tempfile.mkdtemp(prefix=f"{prefix}-"))
    stacks: list[Stack] = []

    def new_stack(name: str) -> Stack:
        copy_project(folder / name)
        stacks.append(Stack(folder / name, f"{prefix}-{name}-{os.getpid()}"))
        return stacks[-1]

    try:
        test(new_stack)
        say("passed")
    except Failed as failure:
        say(f"FAILED: {failure}")
        return 1
    else:
        return 0
    finally:
        say("removing containers, volumes and images")
        for stack in stacks:
            stack.down()
            label = f"label=com.docker.compose.project={stack.environ['COMPOSE_PROJECT_NAME']}"
            prune = [DOCKER, "image", "prune", "--all", "--force", "--filter", label]
            subprocess.run(prune, check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def copy_project(folder: Path) -> None:
    """Copy what a clean clone would have, and what is not committed yet."""
    command = [shutil.which("git") or "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True).stdout
    for name in filter(None, listing.decode().split("\0")):
        source, target = PROJECT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def free_port() -> int:
    """Return a port on loopback that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stack:
    """The stack in the sandbox, as Docker Compose runs it.

    Attributes:
        folder: The copy of the project.
        port: Port of Airflow's page.
        environ: The shell's environment; tests set what `.env` would.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.port = free_port()
        aws = folder.with_name(f"{folder.name}-aws")
        aws.mkdir(exist_ok=True)
        prefixes = ("AIRFLOW", "COINWATCH", "COMPOSE", "AWS")
        self.environ: dict[str, str] = {k: v for k, v in os.environ.items() if not k.startswith(prefixes)} | {
            "COMPOSE_PROJECT_NAME": name,
            "COMPOSE_FILE": "docker-compose.yaml:docker-compose.sandbox.yaml",
            "COINWATCH_TAG": name,
            "COINWATCH_PORT": str(self.port),
            "COINWATCH_SLACK_PORT": str(free_port()),
            "COINWATCH_AWS_DIR": str(aws),
        }
        self._session = requests.Session()
        self._session.trust_env = False

    # --- Compose ------------------------------------------------------------------------------------------------

    def compose(self, *arguments: str, succeeds: bool | None = True, limit: float = 120) -> str:
        """Run `docker compose` and return its output.

        Args:
            *arguments: Its arguments.
            succeeds: The expected outcome; None: either.
            limit: Seconds.
        """
        done = subprocess.run(
            [DOCKER, "compose", "--progress", "plain", *arguments],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit,
            check=False,
        )
        check(
            succeeds is None or succeeds == (not done.returncode),
            f"`docker compose {' '.join(arguments)}` ended with {done.returncode}:\n{done.stdout[-4000:]}",
        )
        return done.stdout

    def exec(self, service: str, *command: str, succeeds: bool | None = True) -> str:
        """Run a command in a service's container and return its output."""
        return self.compose("exec", "-T", service, *command, succeeds=succeeds)

    def logs(self, *services: str, tail: str = "all") -> str:
        """Return the logs of services, of all if none is named."""
        return self.compose("--profile", "*", "logs", "--no-log-prefix", "--tail", tail, *services)

    def containers(self, service: str = "") -> list[dict[str, Any]]:
        """Return what the engine knows of each container, of all profiles."""
        ids = self.compose("--profile", "*", "ps", "--all", "--quiet", *filter(None, [service])).split()
        if not ids:
            return []
        inspected = subprocess.run([DOCKER, "inspect", *ids], check=True, capture_output=True, text=True)
        found: list[dict[str, Any]] = json.loads(inspected.stdout)
        return found

    def up(self, *arguments: str, limit: int = 900) -> None:
        """Start everything, and wait until it is healthy."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", str(limit), *arguments, limit=limit + 60)

    def down(self) -> None:
        """Remove containers, networks and volumes."""
        self.compose("--profile", "*", "down", "--volumes", "--timeout", "5", "--remove-orphans", succeeds=None)

    # --- Airflow ------------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, *, json: Any = None, anonymous: bool = False) -> requests.Response:
        """Send a request to the api-server."""
        url = f"http://127.0.0.1:{self.port}{path}"
        if anonymous:
            return requests.request(method, url, json=json, timeout=20, allow_redirects=False)
        return self._session.request(method, url, json=json, timeout=20)

    def get(self, path: str) -> Any:
        """Return an answer of the API; an empty one while it does not answer."""
        try:
            response = self.ask("GET", path)
        except requests.RequestException:
            return {}
        return response.json() if response.ok else {}

    def log_in(self, password: str) -> None:
        """Get a token for everything that follows."""
        response = self.ask("POST", "/auth/token", json={"username": "admin", "password": password}, anonymous=True)
        check(response.ok, f"admin could not log in: {response.status_code} {response.text[:300]}")
        self._session.headers["Authorization"] = f"Bearer {response.json()['access_token']}"

    def trigger(self, dag_id: str) -> str:
        """Trigger a run over the REST API and return its id."""
        response = self.ask("POST", f"/api/v2/dags/{dag_id}/dagRuns", json={"logical_date": None})
        check(response.ok, f"{dag_id} was not triggered: {response.status_code} {response.text[:300]}")
        return str(response.json()["dag_run_id"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the newest runs, newest first."""
        return list(self.get(f"/api/v2/dags/{dag_id}/dagRuns?order_by=-run_after&limit=20").get("dag_runs", []))

    def tasks(self, dag_id: str = "~", run_id: str = "~") -> list[dict[str, Any]]:
        """Return task instances: of a run, or the newest of all."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances?order_by=-start_date&limit=100"
        return list(self.get(path).get("task_instances", []))

    # --- what is stored -----------------------------------------------------------------------------------------

    def query(self, statement: str, database: str = "warehouse_sandbox", user: str = "analyst") -> list[list[str]]:
        """Return rows of a database as text."""
        output = self.exec("postgres", "psql", "-U", user, "-d", database, "-tAF", "\t", "-c", statement)
        return [line.split("\t") for line in output.splitlines() if line]

    def number(self, statement: str, database: str = "warehouse_sandbox", user: str = "analyst") -> int:
        """Return the only number of a query."""
        return int(self.query(statement, database, user)[0][0])

    def sandbox(self, path: str, port: int = 8482, content: Mapping[str, Any] | None = None) -> str:
        """Return an answer of one of the sandbox's services (8481: CoinGecko, 8482: Slack)."""
        data = [] if content is None else ["-H", "Content-Type: application/json", "-d", json.dumps(content)]
        return self.exec("sandbox", "curl", "-fsS", *data, f"http://127.0.0.1:{port}{path}")

    def objects(self, layer: str) -> int:
        """Return how many objects of a layer are on S3."""
        script = (
            "import boto3, sys; c = boto3.client('s3', endpoint_url='http://127.0.0.1:8483', region_name='us-east-1',"
            " aws_access_key_id='sandbox', aws_secret_access_key='sandbox');"
            " print(sum(p['KeyCount'] for p in c.get_paginator('list_objects_v2')"
            ".paginate(Bucket='coinwatch-sandbox', Prefix=sys.argv[1])))"
        )
        return int(self.exec("sandbox", "python", "-c", script, f"{layer}/"))

    def raw_lines(self) -> list[str]:
        """Return the lines of all raw logs, without their headers."""
        logs = (self.folder / "data" / "sandbox-compose").glob("*_raw.csv")
        return [line for log in logs for line in log.read_text().splitlines()[1:]]


@contextmanager
def step(name: str, stack: Stack, *services: str) -> Iterator[None]:
    """Announce a step and how long it took; on failure show the logs of services."""
    say(f"{name} …")
    began = time.monotonic()
    try:
        yield
    except (Failed, subprocess.SubprocessError, requests.RequestException) as error:
        say(f"{name}: FAILED: {error}")
        for service in services:
            say(f"--- last 60 lines of {service} ---\n{stack.logs(service, tail='60')}")
        raise Failed(f"{name}: {error}") from error
    say(f"{name}: {time.monotonic() - began:.0f} s")
