"""`make test-compose`: the production stack, built, started, broken, stopped and started again, in the sandbox.

It takes about ten minutes on two cores, and needs a Docker engine with Compose 2.24 or newer. Nothing of it is left.
"""

import ipaddress
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from stack import DOCKER, Failed, Stack, check, copy_project, say, step, wait_for

COINS = "bitcoin,ethereum,solana"

MORE_COINS = "ripple,dogecoin,shiba-inu"
"""Added later: their whole history is fetched, by two workers."""

PARTS = ["api-server", "scheduler", "dag-processor", "triggerer"]

MEMORY_LIMIT = 0.8
"""Of its limit, no container takes more: the rest is the room to spare."""

HEALTHY_WITHIN = 600
STOPPED_WITHIN = 30

SECRET_FILES = {
    "airflow": ["fernet_key", "jwt_secret", "secret_key", "sql_alchemy_conn", "broker_url"],
    "init": ["postgres_password", "airflow_password", "warehouse_password", "analyst_password"],
}


def main() -> int:
    """Run it all.

    Returns:
        0 if everything held.
    """
    folder = Path(tempfile.mkdtemp(prefix="coinwatch-compose-")) / "project"
    stack = Stack(_copied(folder), f"coinwatch-test-{os.getpid()}")
    status = 1
    try:
        everything(stack)
        status = 0
        say("everything held")
    except Failed as failure:
        say(f"FAILED: {failure}")
    except KeyboardInterrupt:
        say("ended by hand")
        status = 130
    finally:
        say("taking everything away")
        stack.end()
        stack.remove_images()
        shutil.rmtree(folder.parent, ignore_errors=True)
        say(f"end, with status {status}")
    return status


def _copied(folder: Path) -> Path:
    folder.mkdir()
    copy_project(folder)
    return folder


def everything(stack: Stack) -> None:
    """All that has to hold, in order."""
    stack.environ["COINWATCH_COINS"] = COINS
    stack.profiles = ["sandbox"]
    with step("building the images", stack):
        stack.compose("build", limit=900)
    with step("building them again after a change of the code", stack):
        began = time.monotonic()
        (stack.folder / "include" / "coinwatch" / "__init__.py").open("a").write("\n# changed\n")
        stack.compose("build", limit=120)
        check(holds=time.monotonic() - began < 60, otherwise="that took more than a minute")
    wrong_values_stop_it(stack)
    with step("starting in the sandbox", stack, "prepare", "init", *PARTS):
        stack.up(limit=HEALTHY_WITHIN)
    password = password_of(stack)
    with step("who is let in", stack, "api-server"):
        only_users_are_let_in(stack, password)
    with step("containers as they should be", stack):
        containers_are_as_they_should_be(stack)
    with step("the first hour, which init triggered", stack, "scheduler"):
        _wait_for_runs(stack, "ingest_prices", 240)
    with step("an hour that is triggered over the REST API", stack, "scheduler"):
        an_hour_goes_all_the_way(stack)
    with step("scheduler and PostgreSQL killed in mid-run", stack, "scheduler", "postgres", "api-server"):
        killed_servers_come_back(stack)
    with step("memory and logs", stack):
        memory_suffices(stack)
        logs_show_no_secret(stack, password)
    before = stored(stack)
    _stop(stack)
    stack.environ["AIRFLOW__CORE__EXECUTOR"] = "CeleryExecutor"
    stack.environ["COINWATCH_COINS"] = f"{COINS},{MORE_COINS}"
    stack.profiles = ["sandbox", "celery"]
    with step("starting again, with CeleryExecutor and two workers", stack, "init", "worker", *PARTS):
        stack.up("--scale", "worker=2", limit=HEALTHY_WITHIN)
    with step("everything is still there", stack, "init"):
        stack.log_in(password)
        now = stored(stack)
        lost = {what: (count, now[what]) for what, count in before.items() if now[what] < count}
        check(holds=not lost, otherwise=f"less than before: {lost}")
        shown = [line for line in stack.logs("init").splitlines() if password in line]
        check(holds=len(shown) <= 1, otherwise="the password was shown again")
    with step("history by two workers, one of them killed in mid-task", stack, "scheduler", "worker"):
        a_killed_worker_costs_only_time(stack)
    with step("memory and logs, with workers", stack):
        memory_suffices(stack)
        logs_show_no_secret(stack, password)
    _stop(stack)


# --- before it starts ---------------------------------------------------------------------------------------------


def wrong_values_stop_it(stack: Stack) -> None:
    """What is wrong in `.env` is said in a line each, and nothing starts."""
    with step("wrong values in .env", stack):
        wrong = "FERNET_KEY=not-a-key\nJWT_SECRET=too-short\nCOINWATCH_COINS=Bit Coin\n"
        (stack.folder / ".env").write_text(wrong)
        coins = stack.environ.pop("COINWATCH_COINS")
        stack.compose("up", "--detach", ok=False)
        stack.environ["COINWATCH_COINS"] = coins
        said = stack.logs("prepare")
        for start in ("FERNET_KEY in .env: ", "JWT_SECRET in .env: ", "COINWATCH_COINS='Bit Coin': "):
            check(holds=start in said, otherwise=f"prepare did not say {start!r}:\n{said}")
        check(holds="not-a-key" not in said and "too-short" not in said, otherwise=f"a secret was shown:\n{said}")
        started = [box["Name"] for box in stack.of_service("postgres") if box["State"]["StartedAt"] > "0002"]
        check(holds=not started, otherwise=f"started all the same: {started}")
        (stack.folder / ".env").unlink()
        stack.end()
    with step("a data folder that cannot be written", stack):
        override = "services: {prepare: {volumes: ['./data:/opt/airflow/data:ro']}}\n"
        (stack.folder / "read-only.yaml").write_text(override)
        files = ("--file", "docker-compose.yaml", "--file", "read-only.yaml")
        stack.compose(*files, "up", "--detach", ok=False)
        said = stack.logs("prepare")
        check(
            holds=bool(
                re.search(r"the data folder ./data cannot be written .*: run `sudo chown -R 50000:0 ./data`", said)
            ),
            otherwise=f"prepare did not say what to do:\n{said}",
        )
        stack.end()
    with step("a port in use", stack), socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", stack.port))
        other.listen()
        said = stack.compose("up", "--detach", "--no-deps", "api-server", ok=False)
        check(
            holds=(str(stack.port) in said and "api-server" in said and "in use" in said) or "allocated" in said,
            otherwise=f"neither port nor service were named:\n{said}",
        )
        stack.end()


# --- as it stands -------------------------------------------------------------------------------------------------


def password_of(stack: Stack) -> str:
    """The password that init showed."""
    shown = re.findall(r"password of admin: (\S+)", stack.logs("init"))
    check(holds=len(shown) == 1, otherwise=f"init showed {len(shown)} passwords")
    return str(shown[0])


def only_users_are_let_in(stack: Stack, password: str) -> None:
    """The user logs in; anybody else gets nothing."""
    stack.log_in(password)
    check(holds=stack.ask("GET", "/api/v2/dags").ok, otherwise="admin may not see the Dags")
    paused = [dag["dag_id"] for dag in stack.get("/api/v2/dags")["dags"] if dag["is_paused"]]
    check(holds=not paused, otherwise=f"these Dags are switched off: {paused}")
    for path in ("dags", "connections", "variables", "config", "assets", "dags/ingest_prices/dagRuns"):
        status = stack.ask("GET", f"/api/v2/{path}", anonymous=True).status_code
        check(holds=status == 401, otherwise=f"an anonymous visitor of {path} gets {status}, not 401")
    page = stack.ask("GET", "/coinwatch/", anonymous=True)
    check(holds=not page.ok or "Bitcoin" not in page.text, otherwise="anybody gets the page /coinwatch/")
    wrong = {"username": "admin", "password": "admin"}
    status = stack.ask("POST", "/auth/token", json=wrong, anonymous=True).status_code
    check(holds=status == 401, otherwise=f"a wrong password gets {status}, not 401")


def containers_are_as_they_should_be(stack: Stack) -> None:
    """Health checks, limits, rotation, ports on loopback only, nobody root, and no way in or out but the given ones."""
    for box in stack.containers():
        labels, host = box["Config"]["Labels"], box["HostConfig"]
        service = labels["com.docker.compose.service"]
        check(holds=bool(box["Config"].get("Healthcheck")), otherwise=f"{service} has no health check")
        check(holds=host["Memory"] > 0, otherwise=f"{service} has no memory limit")
        check(holds="max-size" in host["LogConfig"]["Config"], otherwise=f"{service}'s log is never rotated")
        once = service in {"prepare", "init"}
        policy = host["RestartPolicy"]["Name"]
        check(holds=policy == ("no" if once else "unless-stopped"), otherwise=f"{service} has restart policy {policy}")
        published = {
            port: [to["HostIp"] for to in where or ()] for port, where in box["NetworkSettings"]["Ports"].items()
        }
        open_to = {ip for addresses in published.values() for ip in addresses}
        check(
            holds=all(ipaddress.ip_address(ip).is_loopback for ip in open_to),
            otherwise=f"{service} is open to others: {published}",
        )
        check(
            holds=not open_to or service in {"api-server", "sandbox"},
            otherwise=f"{service} has a port on the host: {published}",
        )
    for part in PARTS:
        user = stack.exec(part, "id", "-u").strip()
        check(holds=user == "50000", otherwise=f"{part} runs as user {user}")
    analyst = ("postgres", "psql", "-U", "analyst", "-d")
    check(
        holds="denied" in stack.exec(*analyst, "airflow_sandbox", "-c", "", ok=False),
        otherwise="the analyst may read Airflow's database",
    )
    said = stack.exec(*analyst, "warehouse_sandbox", "-c", "DELETE FROM prices", ok=False)
    check(holds="read-only" in said, otherwise=f"the analyst may change the warehouse: {said}")


def hour_by_hand(stack: Stack) -> None:
    """A run that is triggered over the REST API, and what it starts."""
    run_id = stack.trigger("ingest_prices")
    _wait_for_run(stack, "ingest_prices", run_id, 240)
    _wait_until_processed(stack, 240)


def an_hour_goes_all_the_way(stack: Stack) -> None:
    """From a click on Trigger to rows, objects and a message."""
    rows = stack.number("SELECT count(*) FROM prices")
    hour_by_hand(stack)
    newest = stack.runs("process_prices")[0]["dag_run_id"]
    started_by = stack.get(f"/api/v2/dags/process_prices/dagRuns/{newest}/upstreamAssetEvents")
    sources = {event["source_dag_id"] for event in started_by["asset_events"]}
    check(holds=sources == {"ingest_prices"}, otherwise=f"process_prices was started by {sources}")
    coins = COINS.count(",") + 1
    now = stack.number("SELECT count(*) FROM prices")
    check(holds=now >= rows + coins, otherwise=f"{now} rows of prices, {rows} before")
    counted = stack.number("SELECT count(*) FROM prices p JOIN price_statistics s USING (coin, currency, ts)")
    check(holds=counted == now, otherwise=f"{now} prices, {counted} with statistics")
    waiting = stack.number("SELECT count(*) FROM pending_uploads")
    check(holds=waiting == 0, otherwise=f"{waiting} partitions wait to be uploaded")
    hours = stack.number("SELECT count(DISTINCT date_trunc('hour', ts)) FROM price_statistics")
    for layer in ("raw", "processed"):
        objects = stack.objects(layer)
        check(holds=objects == hours, otherwise=f"S3 has {objects} {layer} objects for {hours} hours")
    alerts = stack.query("SELECT message FROM alerts WHERE delivery = 'delivered'")
    check(holds=any("BTC" in message for (message,) in alerts), otherwise=f"no alert of Bitcoin's fall: {alerts}")
    check(holds="BTC" in stack.sandbox("/messages"), otherwise="the sandbox's Slack has no message")


def killed_servers_come_back(stack: Stack) -> None:
    """The restart policy brings them back, the run comes to its end, and no row is lost or doubled."""
    stack.sandbox("/sandbox/faults", 8481, {"kind": "slow", "seconds": 15, "times": 1, "path": "/simple/price"})
    run_id = stack.trigger("ingest_prices")
    wait_for("a task in mid-run", lambda: _running(stack, "ingest_prices", run_id), 90, every=0.5)
    _kill_from_inside(stack, "scheduler", "kill -9 -1")
    # As after a crash: at once, without tidying up.
    _kill_from_inside(stack, "postgres", "kill -QUIT 1")
    wait_for("the restart of both", lambda: _restarts(stack, "scheduler") and _restarts(stack, "postgres"), 120)
    wait_for("the health of all", lambda: _all_healthy(stack), 240)
    _wait_for_run(stack, "ingest_prices", run_id, 420)
    _wait_until_processed(stack, 240)
    check_nothing_is_doubled(stack)


def check_nothing_is_doubled(stack: Stack) -> None:
    """The raw logs and the warehouse have each line once, and the same ones."""
    folder = stack.folder / "data" / "sandbox-compose"
    lines = [line for path in folder.glob("*_raw.csv") for line in path.read_text().splitlines()[1:]]
    keys = [(*line.split(",")[:3], line.split(",")[9]) for line in lines]
    doubled = len(keys) - len(set(keys))
    check(holds=not doubled, otherwise=f"{doubled} lines of the raw logs are doubled")
    stored = stack.number("SELECT count(*) FROM raw_prices")
    check(holds=stored == len(keys), otherwise=f"{len(keys)} lines in the raw logs, {stored} in the warehouse")
    messages = stack.query("SELECT count(*), count(DISTINCT id) FROM alerts")[0]
    check(holds=messages[0] == messages[1], otherwise=f"alerts are doubled: {messages}")


def a_killed_worker_costs_only_time(stack: Stack) -> None:
    """Both workers fetch history; one is killed while it does, and all of it is there in the end."""
    stack.sandbox("/sandbox/faults", 8481, {"kind": "slow", "seconds": 12, "times": 2, "path": "/market_chart"})
    run_id = stack.trigger("ingest_prices")

    def fetching() -> list[dict[str, Any]]:
        running = _running(stack, "ingest_prices", run_id)
        return [task for task in running if task["task_id"] == "fetch_history" and task["hostname"]]

    victim = wait_for("a history request in mid-task", fetching, 150, every=0.5)[0]["hostname"]
    box = next(box for box in stack.of_service("worker") if box["Config"]["Hostname"] == victim)
    subprocess.run([DOCKER, "kill", "--signal", "KILL", box["Id"]], check=True, capture_output=True)
    say(f"killed worker {victim} in mid-task")
    _wait_for_run(stack, "ingest_prices", run_id, 480)
    _wait_until_processed(stack, 240)
    tasks = [task for run in stack.runs("ingest_prices") for task in stack.tasks("ingest_prices", run["dag_run_id"])]
    workers = {box["Config"]["Hostname"] for box in stack.of_service("worker")}
    hosts = {task["hostname"] for task in tasks} & workers
    check(holds=hosts == workers, otherwise=f"of the workers {workers} only {hosts} did something")
    retried = [task for task in tasks if task["dag_run_id"] == run_id and task["try_number"] > 1]
    check(holds=bool(retried), otherwise="no task was tried again: the worker was killed too late")
    coins = {coin for (coin,) in stack.query("SELECT DISTINCT coin FROM price_statistics")}
    check(holds=coins == set(stack.environ["COINWATCH_COINS"].split(",")), otherwise=f"only {coins} are there")
    check_nothing_is_doubled(stack)


def memory_suffices(stack: Stack) -> None:
    """Each container has room to spare, and none was ever killed for want of memory."""
    boxes = {box["Id"]: box for box in stack.containers() if box["State"]["Running"]}
    table = subprocess.run(
        [DOCKER, "stats", "--no-stream", "--no-trunc", "--format", "{{.ID}}\t{{.MemPerc}}\t{{.MemUsage}}", *boxes],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for line in table.splitlines():
        box_id, percent, usage = line.split("\t")
        service = boxes[box_id]["Config"]["Labels"]["com.docker.compose.service"]
        say(f"  {service:<14}{usage}")
        taken = float(percent.rstrip("%")) / 100
        check(holds=taken <= MEMORY_LIMIT, otherwise=f"{service} takes {taken:.0%} of its memory limit")
        check(holds=not boxes[box_id]["State"]["OOMKilled"], otherwise=f"{service} was killed for want of memory")


def logs_show_no_secret(stack: Stack, password: str) -> None:
    """Of all secrets only the admin's generated password was ever shown, once, by init."""
    logs = stack.logs()
    script = 'for f in /run/coinwatch/{}/*; do [ -f $f ] && echo "$(basename $f)\t$(cat $f)"; done'
    for folder, names in SECRET_FILES.items():
        command = ["run", "--rm", "--no-deps", "--entrypoint", "bash", "init", "-c", script.replace("{}", folder)]
        values = dict(line.split("\t", 1) for line in stack.compose(*command).splitlines() if "\t" in line)
        for name in names:
            check(holds=bool(values.get(name)), otherwise=f"there is no secret {name}")
            check(holds=values[name] not in logs, otherwise=f"the secret {name} is in the logs")
    check(holds=logs.count(password) <= 1, otherwise="the admin's password is in the logs more than once")


# --- what the steps are made of -----------------------------------------------------------------------------------


def _stop(stack: Stack) -> None:
    with step("stopping", stack):
        began = time.monotonic()
        stack.compose("stop")
        took = time.monotonic() - began
        check(holds=took < STOPPED_WITHIN, otherwise=f"that took {took:.0f} s")


def stored(stack: Stack, *, with_sandbox: bool = True) -> dict[str, int]:
    """How much of everything there is."""
    counts = {
        "prices": stack.number("SELECT count(*) FROM prices"),
        "statistics": stack.number("SELECT count(*) FROM price_statistics"),
        "alerts": stack.number("SELECT count(*) FROM alerts"),
        "runs": int(stack.query("SELECT count(*) FROM dag_run", "airflow_sandbox", "postgres")[0][0]),
        "connections": int(stack.query("SELECT count(*) FROM connection", "airflow_sandbox", "postgres")[0][0]),
    }
    if with_sandbox:
        counts |= {"raw objects": stack.objects("raw"), "messages": len(json.loads(stack.sandbox("/messages")))}
    return counts


def _running(stack: Stack, dag_id: str, run_id: str) -> list[dict[str, Any]]:
    return [task for task in stack.tasks(dag_id, run_id) if task["state"] == "running"]


def _wait_for_run(stack: Stack, dag_id: str, run_id: str, limit: float) -> None:
    def ended() -> str | None:
        state = stack.run_state(dag_id, run_id)
        return state if state in {"success", "failed"} else None

    state = wait_for(f"the end of {dag_id}, run {run_id},", ended, limit)
    tasks = {(task["task_id"], task["map_index"]): task["state"] for task in stack.tasks(dag_id, run_id)}
    check(holds=state == "success", otherwise=f"{dag_id} ended as {state}: {tasks}")


def _wait_for_runs(stack: Stack, dag_id: str, limit: float) -> None:
    def all_ended() -> bool:
        runs = stack.runs(dag_id)
        return bool(runs) and all(run["state"] in {"success", "failed"} for run in runs)

    wait_for(f"the end of all runs of {dag_id}", all_ended, limit)
    failed = [run["dag_run_id"] for run in stack.runs(dag_id) if run["state"] != "success"]
    check(holds=not failed, otherwise=f"{dag_id} failed: {failed}")


def _wait_until_processed(stack: Stack, limit: float) -> None:
    """Until the raw logs are in the warehouse, and no run is under way."""

    def done() -> bool:
        stored = stack.number("SELECT count(*) FROM raw_prices")
        folder = stack.folder / "data" / "sandbox-compose"
        lines = sum(len(path.read_text().splitlines()) - 1 for path in folder.glob("*_raw.csv"))
        return stored == lines

    wait_for("what is in the raw logs, in the warehouse", done, limit)
    _wait_for_runs(stack, "process_prices", limit)


def _kill_from_inside(stack: Stack, service: str, command: str) -> None:
    # So that its restart policy has to bring it back: what `docker kill` ended would stay down.
    stack.exec(service, "bash", "-c", command, ok=None)


def _restarts(stack: Stack, service: str) -> int:
    return sum(box["RestartCount"] for box in stack.of_service(service))


def _all_healthy(stack: Stack) -> bool:
    boxes = [box for box in stack.containers() if box["HostConfig"]["RestartPolicy"]["Name"] != "no"]
    return all(box["State"].get("Health", {}).get("Status") == "healthy" for box in boxes)


if __name__ == "__main__":
    raise SystemExit(main())
