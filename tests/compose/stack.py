"""A stack of its own under a name of its own, from a clean copy of the project; nothing of it is left at the end."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

PROJECT = Path(__file__).resolve().parents[2]

DOCKER = shutil.which("docker") or "docker"

BEGAN = time.monotonic()


class Failed(Exception):
    """What was expected did not come; the message says what did."""


def say(text: str) -> None:
    """A line of progress, with the seconds since the start."""
    sys.stdout.write(f"{time.monotonic() - BEGAN:6.0f} s  {text}\n")
    sys.stdout.flush()


def check(*, holds: bool, otherwise: str) -> None:
    """Fail unless something holds."""
    if not holds:
        raise Failed(otherwise)


def copy_project(folder: Path) -> None:
    """What a clean clone would have, with what is not committed yet."""
    listing = subprocess.run(
        [shutil.which("git") or "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        check=True,
        capture_output=True,
    ).stdout
    for name in filter(None, listing.decode().split("\0")):
        source, target = PROJECT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def free_port() -> int:
    """A port on loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stack:
    """The stack, as Docker Compose runs it.

    Attributes:
        folder: The copy of the project.
        port: Of Airflow's page.
        environ: What the shell has; tests set what `.env` would.
        profiles: Those that are on.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.profiles: list[str] = []
        aws = folder.with_name(f"{folder.name}-aws")
        aws.mkdir(exist_ok=True)
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "COINWATCH", "AWS"))
        }
        self.environ: dict[str, str] = kept | {
            "COMPOSE_PROJECT_NAME": name,
            "COINWATCH_TAG": name,
            "COINWATCH_PORT": str(self.port),
            "COINWATCH_SLACK_PORT": str(free_port()),
            "COINWATCH_AWS_DIR": str(aws),
        }
        self._session = requests.Session()
        self._session.trust_env = False

    # --- Compose ------------------------------------------------------------------------------------------------

    def compose(self, *arguments: str, ok: bool | None = True, limit: float = 120, give: str | None = None) -> str:
        """Run `docker compose`, with the profiles that are on.

        Args:
            *arguments: Its own.
            ok: Whether it is to succeed or to fail; none if either will do.
            limit: Seconds.
            give: What it reads.

        Returns:
            What it wrote, errors too.
        """
        profiles = [word for profile in self.profiles for word in ("--profile", profile)]
        command = [DOCKER, "compose", "--progress", "plain", *profiles, *arguments]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environ,
            input=give,
            stdin=subprocess.DEVNULL if give is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit,
            check=False,
        )
        if ok and done.returncode:
            raise Failed(f"`docker compose {' '.join(arguments)}` ended with {done.returncode}:\n{done.stdout[-4000:]}")
        if ok is False and not done.returncode:
            raise Failed(f"`docker compose {' '.join(arguments)}` was to fail, and did not:\n{done.stdout[-2000:]}")
        return done.stdout

    def exec(self, service: str, *command: str, limit: float = 60, ok: bool | None = True) -> str:
        """Run a command in a service's container; what it wrote."""
        return self.compose("exec", "-T", service, *command, limit=limit, ok=ok)

    def logs(self, *services: str, tail: str = "all") -> str:
        """What services have said."""
        return self.compose("--profile", "*", "logs", "--no-log-prefix", "--tail", tail, *services)

    def containers(self) -> list[dict[str, Any]]:
        """What the engine knows of each container, of all profiles."""
        ids = self.compose("--profile", "*", "ps", "--all", "--quiet").split()
        if not ids:
            return []
        inspected = subprocess.run([DOCKER, "inspect", *ids], check=True, capture_output=True, text=True)
        found: list[dict[str, Any]] = json.loads(inspected.stdout)
        return found

    def of_service(self, service: str) -> list[dict[str, Any]]:
        """The containers of a service."""
        return [box for box in self.containers() if box["Config"]["Labels"]["com.docker.compose.service"] == service]

    def up(self, *arguments: str, limit: float = 600) -> None:
        """Start everything, and wait for its health."""
        self.compose("up", "--detach", "--wait", "--wait-timeout", str(int(limit)), *arguments, limit=limit + 60)

    def end(self) -> None:
        """Take away everything that was made."""
        subprocess.run(
            [DOCKER, "compose", "--profile", "*", "down", "--volumes", "--timeout", "5", "--remove-orphans"],
            cwd=self.folder,
            env=self.environ,
            check=False,
            capture_output=True,
            timeout=120,
        )

    def remove_images(self) -> None:
        """Take away the images that were built; the build's cache stays."""
        tag = self.environ["COINWATCH_TAG"]
        images = [f"coinwatch:{tag}", f"coinwatch-sandbox:{tag}"]
        subprocess.run([DOCKER, "image", "rm", "--force", *images], check=False, capture_output=True)

    # --- Airflow ------------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, *, json: Any = None, anonymous: bool = False) -> requests.Response:
        """Ask the api-server, once."""
        url = f"http://127.0.0.1:{self.port}{path}"
        if anonymous:
            return requests.request(method, url, json=json, timeout=20, allow_redirects=False)
        return self._session.request(method, url, json=json, timeout=20)

    def get(self, path: str) -> Any:
        """What the API answers; none while it cannot."""
        try:
            response = self.ask("GET", path)
        except requests.RequestException:
            return None
        return response.json() if response.ok else None

    def log_in(self, password: str) -> None:
        """Have a token for everything that follows."""
        response = self.ask("POST", "/auth/token", json={"username": "admin", "password": password}, anonymous=True)
        check(holds=response.ok, otherwise=f"admin could not log in: {response.status_code} {response.text[:300]}")
        self._session.headers["Authorization"] = f"Bearer {response.json()['access_token']}"

    def trigger(self, dag_id: str) -> str:
        """Start a run over the REST API; its id."""
        response = self.ask("POST", f"/api/v2/dags/{dag_id}/dagRuns", json={"logical_date": None})
        check(holds=response.ok, otherwise=f"{dag_id} was not triggered: {response.status_code} {response.text[:300]}")
        return str(response.json()["dag_run_id"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        """The state of a run."""
        return str((self.get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}") or {}).get("state"))

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The task instances of a run."""
        return list((self.get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances") or {}).get("task_instances", []))

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """The newest runs, newest first."""
        return list((self.get(f"/api/v2/dags/{dag_id}/dagRuns?order_by=-run_after&limit=20") or {}).get("dag_runs", []))

    # --- what is stored -----------------------------------------------------------------------------------------

    def query(self, statement: str, database: str = "warehouse_sandbox", user: str = "analyst") -> list[list[str]]:
        """Rows of a database, as texts; as an analyst, unless another one is named."""
        output = self.exec("postgres", "psql", "-U", user, "-d", database, "-tAF", "\t", "-c", statement)
        return [line.split("\t") for line in output.splitlines() if line]

    def number(self, statement: str) -> int:
        """The one number that a query gives."""
        return int(self.query(statement)[0][0])

    def sandbox(self, path: str, port: int = 8482, content: Mapping[str, Any] | None = None) -> str:
        """What one of the sandbox's services answers."""
        data = [] if content is None else ["-d", json.dumps(content)]
        return self.exec("sandbox", "curl", "-fsS", *data, f"http://127.0.0.1:{port}{path}")

    def objects(self, layer: str) -> int:
        """How many objects S3 has in a layer."""
        script = (
            "import boto3, sys; c = boto3.client('s3', endpoint_url='http://127.0.0.1:8483', region_name='us-east-1',"
            " aws_access_key_id='sandbox', aws_secret_access_key='sandbox');"
            " print(sum(p['KeyCount'] for p in c.get_paginator('list_objects_v2')"
            ".paginate(Bucket='coinwatch-sandbox', Prefix=sys.argv[1])))"
        )
        return int(self.exec("sandbox", "python", "-c", script, f"{layer}/"))


def wait_for(what: str, condition: Callable[[], Any], limit: float, every: float = 2) -> Any:
    """Wait until something is there.

    Returns:
        What the condition gave.

    Raises:
        Failed: It did not come in time.
    """
    deadline = time.monotonic() + limit
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failed(f"{what} did not come within {limit:.0f} s")
        time.sleep(every)


@contextmanager
def step(name: str, stack: Stack, *services: str) -> Iterator[None]:
    """Say what is being done and how long it took; on failure, what the services have said."""
    say(f"{name} …")
    began = time.monotonic()
    try:
        yield
    except (Failed, subprocess.SubprocessError, requests.RequestException) as error:
        say(f"{name}: FAILED: {error}")
        for service in services:
            sys.stdout.write(f"--- the log of {service}, its last 60 lines ---\n{stack.logs(service, tail='60')}\n")
        sys.stdout.flush()
        raise Failed(f"{name}: {error}") from error
    say(f"{name}: {time.monotonic() - began:.0f} s")
