"""`make test-compose`: builds, starts, breaks, stops and restarts the production stack, in the sandbox.

It takes about ten minutes on two cores and needs a Docker engine with Compose 2.24 or newer. Nothing of it is left.
"""

import ipaddress
import json
import re
import subprocess
from collections.abc import Callable

from stack import DOCKER, SERVICES, Stack, check, run_with_stacks, say, step, wait_for

COINS = "bitcoin,ethereum,solana"
MORE_COINS = "ripple,dogecoin,shiba-inu"
"""Added later: two workers fetch their whole history."""

MEMORY_LIMIT = 0.8
"""Of its limit; no container takes more."""


def test(new_stack: Callable[[str], Stack]) -> None:
    """Everything that has to hold, in order."""
    stack = new_stack("test")
    stack.environ["COINWATCH_COINS"] = COINS
    with step("build", stack):
        stack.compose("build", limit=900)
    stopped_by_wrong_values(stack)
    with step("start", stack, "prepare", "init", *SERVICES):
        stack.up()
    password = password_of(stack)
    with step("access", stack, "api-server"):
        only_users_have_access(stack, password)
    with step("containers", stack):
        containers_are_restricted(stack)
    with step("first hour and history", stack, "scheduler"):
        wait_for_history(stack, 300)
    with step("a triggered hour", stack, "scheduler"):
        an_hour_is_processed(stack)
    with step("scheduler and PostgreSQL killed during a run", stack, "scheduler", "postgres", "api-server"):
        killed_servers_restart(stack)
    with step("memory and logs", stack):
        memory_suffices(stack)
        logs_have_no_secret(stack, password)
    before = stored(stack)
    stack.compose("stop")
    stack.environ |= {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "COMPOSE_PROFILES": "celery",
        "COINWATCH_COINS": f"{COINS},{MORE_COINS}",
    }
    with step("start with CeleryExecutor and two workers", stack, "init", "worker", *SERVICES):
        stack.up("--scale", "worker=2")
    with step("nothing is lost", stack, "init"):
        stack.log_in(password)
        check_nothing_is_lost(before, stored(stack))
        check(stack.logs("init").count(password) <= 1, "init showed the password again")
    with step("history by two workers, one of them killed during a task", stack, "scheduler", "worker"):
        a_killed_worker_loses_nothing(stack)
    with step("memory and logs, with workers", stack):
        memory_suffices(stack)
        logs_have_no_secret(stack, password)


# --- before it starts ---------------------------------------------------------------------------------------------


def stopped_by_wrong_values(stack: Stack) -> None:
    """Wrong values and a read-only data folder stop the start with a clear message."""
    with step("wrong values in .env", stack):
        wrong = "FERNET_KEY=not-a-key\nJWT_SECRET=too-short\nCOINWATCH_COINS=Bit Coin\n"
        (stack.folder / ".env").write_text(wrong)
        coins = stack.environ.pop("COINWATCH_COINS")
        stack.compose("up", "--detach", succeeds=False)
        stack.environ["COINWATCH_COINS"] = coins
        log = stack.logs("prepare")
        for start in ("FERNET_KEY in .env: ", "JWT_SECRET in .env: ", "COINWATCH_COINS='Bit Coin': "):
            check(start in log, f"the log of prepare lacks {start!r}:\n{log}")
        check("not-a-key" not in log and "too-short" not in log, f"the log of prepare has a secret:\n{log}")
        started = [box["Name"] for box in stack.containers("postgres") if box["State"]["StartedAt"] > "0002"]
        check(not started, f"started all the same: {started}")
        (stack.folder / ".env").unlink()
        stack.down()
    with step("a read-only data folder", stack):
        override = "services: {prepare: {volumes: ['./data:/opt/airflow/data:ro']}}\n"
        (stack.folder / "read-only.yaml").write_text(override)
        files = stack.environ["COMPOSE_FILE"]
        stack.environ["COMPOSE_FILE"] = f"{files}:read-only.yaml"
        stack.compose("up", "--detach", succeeds=False)
        log = stack.logs("prepare")
        check("run `sudo chown -R 50000:0 ./data`" in log, f"the log of prepare does not say what to do:\n{log}")
        stack.down()
        stack.environ["COMPOSE_FILE"] = files


# --- while it runs ------------------------------------------------------------------------------------------------


def password_of(stack: Stack) -> str:
    """Return the password that init showed."""
    shown = re.findall(r"password of admin: (\S+)", stack.logs("init"))
    check(len(shown) == 1, f"init showed {len(shown)} passwords")
    return str(shown[0])


def only_users_have_access(stack: Stack, password: str) -> None:
    """The user logs in; everybody else is refused."""
    stack.log_in(password)
    check(stack.ask("GET", "/api/v2/dags").ok, "admin may not see the Dags")
    paused = [dag["dag_id"] for dag in stack.get("/api/v2/dags")["dags"] if dag["is_paused"]]
    check(not paused, f"these Dags are paused: {paused}")
    for path in ("dags", "connections", "variables", "config", "assets", "dags/ingest_prices/dagRuns"):
        status = stack.ask("GET", f"/api/v2/{path}", anonymous=True).status_code
        check(status == 401, f"an anonymous request for {path} gets {status}, not 401")
    page = stack.ask("GET", "/coinwatch/", anonymous=True)
    check(not page.ok or "Bitcoin" not in page.text, "/coinwatch/ is public")
    wrong = {"username": "admin", "password": "admin"}
    status = stack.ask("POST", "/auth/token", json=wrong, anonymous=True).status_code
    check(status == 401, f"a wrong password gets {status}, not 401")


def containers_are_restricted(stack: Stack) -> None:
    """Ports on loopback only, and nobody is root; tests/contract/test_8_compose.py has the rest."""
    for box in stack.containers():
        service = box["Config"]["Labels"]["com.docker.compose.service"]
        ports = [to["HostIp"] for where in box["NetworkSettings"]["Ports"].values() for to in where or ()]
        check(all(ipaddress.ip_address(ip).is_loopback for ip in ports), f"{service} is public: {ports}")
        check(not ports or service in {"api-server", "sandbox"}, f"{service} has a port on the host: {ports}")
    for service in ("postgres", *SERVICES):
        user = stack.exec(service, "id", "-u").strip()
        check(user == ("999" if service == "postgres" else "50000"), f"{service} runs as user {user}")
    analyst = ("postgres", "psql", "-U", "analyst", "-d")
    output = stack.exec(*analyst, "airflow_sandbox", "-c", "", succeeds=False)
    check("denied" in output, f"the analyst may read Airflow's database: {output}")
    output = stack.exec(*analyst, "warehouse_sandbox", "-c", "DELETE FROM prices", succeeds=False)
    check("read-only" in output, f"the analyst may change the warehouse: {output}")


def wait_for_history(stack: Stack, limit: float) -> None:
    """Wait until the warehouse has the history of all coins, and no run is active."""
    coins = len(stack.environ.get("COINWATCH_COINS", "bitcoin").split(","))
    # Of 90 days.
    complete = "SELECT coin FROM price_statistics GROUP BY coin HAVING count(*) > 24 * 85"
    wait_for("history of all coins", lambda: len(stack.query(complete)) == coins, limit)
    wait_until_processed(stack, 240)


def trigger_an_hour(stack: Stack) -> None:
    """Trigger a run over the REST API, and wait until its price is processed."""
    _wait_for_run(stack, stack.trigger("ingest_prices"), 240)
    wait_until_processed(stack, 240)


def an_hour_is_processed(stack: Stack) -> None:
    """A triggered run leads to rows, objects and a message."""
    rows = stack.number("SELECT count(*) FROM prices")
    trigger_an_hour(stack)
    newest = stack.runs("process_prices")[0]["dag_run_id"]
    events = stack.get(f"/api/v2/dags/process_prices/dagRuns/{newest}/upstreamAssetEvents")["asset_events"]
    sources = {event["source_dag_id"] for event in events}
    check("ingest_prices" in sources, f"process_prices was started by {sources}")
    now = stack.number("SELECT count(*) FROM prices")
    check(now >= rows + len(COINS.split(",")), f"{now} rows of prices, {rows} before")
    computed = stack.number("SELECT count(*) FROM prices p JOIN price_statistics s USING (coin, currency, ts)")
    check(computed == now, f"{now} prices, {computed} with statistics")
    hours = stack.number("SELECT count(DISTINCT date_trunc('hour', ts)) FROM price_statistics")
    for layer in ("raw", "processed"):
        objects = stack.objects(layer)
        check(objects == hours, f"S3 has {objects} {layer} objects for {hours} hours")
    alerts = stack.query("SELECT message FROM alerts WHERE delivered_at IS NOT NULL")
    check(any("BTC" in message for (message, *_) in alerts), f"no alert about Bitcoin's fall: {alerts}")
    check("BTC" in stack.sandbox("/messages"), "the sandbox's Slack has no message")


def killed_servers_restart(stack: Stack) -> None:
    """The restart policy brings them back, the run ends, and no row is lost or doubled."""
    _slow_down(stack, "/simple/price", seconds=15, times=1)
    run_id = stack.trigger("ingest_prices")
    running = {"state": "running"}.items()
    wait_for("running task", lambda: any(running <= t.items() for t in stack.tasks("ingest_prices", run_id)), 90, 0.5)
    # From inside: the restart policy does not apply to what `docker kill` ends.
    stack.exec("scheduler", "bash", "-c", "kill -9 -1", succeeds=None)
    # An immediate shutdown, as after a crash.
    stack.exec("postgres", "bash", "-c", "kill -QUIT 1", succeeds=None)

    def restarted(service: str) -> bool:
        return any(box["RestartCount"] for box in stack.containers(service))

    def all_healthy() -> bool:
        boxes = [box for box in stack.containers() if box["HostConfig"]["RestartPolicy"]["Name"] != "no"]
        return all(box["State"].get("Health", {}).get("Status") == "healthy" for box in boxes)

    wait_for("restart of both", lambda: restarted("scheduler") and restarted("postgres"), 120)
    wait_for("health of all", all_healthy, 240)
    _wait_for_run(stack, run_id, 420)
    wait_until_processed(stack, 240)
    check_nothing_is_doubled(stack)


def check_nothing_is_doubled(stack: Stack) -> None:
    """Check that raw logs and warehouse have each row once, and the same ones."""
    keys = [(*fields[:3], fields[9]) for fields in (line.split(",") for line in stack.raw_lines())]
    check(len(keys) == len(set(keys)), f"{len(keys) - len(set(keys))} lines of the raw logs are doubled")
    stored = stack.number("SELECT count(*) FROM raw_prices")
    check(stored == len(keys), f"{len(keys)} lines in the raw logs, {stored} in the warehouse")


def a_killed_worker_loses_nothing(stack: Stack) -> None:
    """Both workers fetch history; one is killed meanwhile, and all of it arrives."""
    _slow_down(stack, "/market_chart", seconds=12, times=2)
    stack.trigger("ingest_prices")

    def fetching() -> list[str]:
        history = [task for task in stack.tasks() if task["task_id"] == "fetch_history"]
        return [task["hostname"] for task in history if task["state"] == "running" and task["hostname"]]

    victim = wait_for("running fetch_history", fetching, 180, 0.5)[0]
    workers = {box["Config"]["Hostname"]: box["Id"] for box in stack.containers("worker")}
    subprocess.run([DOCKER, "kill", "--signal", "KILL", workers[victim]], check=True, capture_output=True)
    say(f"killed worker {victim} during a task")
    wait_for_history(stack, 600)
    tasks = stack.tasks()
    hosts = {task["hostname"] for task in tasks} & set(workers)
    check(hosts == set(workers), f"of the workers {set(workers)} only {hosts} ran tasks")
    retried = [task for task in tasks if task["task_id"] == "fetch_history" and task["try_number"] > 1]
    check(retried, "no task was retried: the worker was killed too late")
    check_nothing_is_doubled(stack)


def memory_suffices(stack: Stack) -> None:
    """Each container stays well below its limit, and none was killed by it."""
    boxes = {box["Id"]: box for box in stack.containers() if box["State"]["Running"]}
    columns = "{{.ID}}\t{{.MemPerc}}\t{{.MemUsage}}"
    command = [DOCKER, "stats", "--no-stream", "--no-trunc", "--format", columns, *boxes]
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        box_id, percent, usage = line.split("\t")
        service = boxes[box_id]["Config"]["Labels"]["com.docker.compose.service"]
        say(f"  {service:<14}{usage}")
        check(float(percent.rstrip("%")) <= 100 * MEMORY_LIMIT, f"{service} takes {percent} of its memory limit")
        check(not boxes[box_id]["State"]["OOMKilled"], f"{service} ran out of memory")


def logs_have_no_secret(stack: Stack, password: str) -> None:
    """Of all secrets only the admin's generated password was shown, once, by init."""
    logs = stack.logs()
    script = 'cd /run/coinwatch/secrets; for f in *; do printf "%s\t%s\n" $f "$(cat $f)"; done'
    output = stack.compose("run", "--rm", "--no-deps", "--entrypoint", "bash", "init", "-c", script)
    values = dict(line.split("\t", 1) for line in output.splitlines() if "\t" in line)
    check(len(values) == 10, f"unexpected files of secrets: {sorted(values)}")
    check(values.pop("ADMIN_PASSWORD") == password, "init showed another password")
    shown = [name for name, value in values.items() if value in logs]
    check(not shown, f"secrets in the logs: {shown}")
    check(logs.count(password) <= 1, "the password is in the logs more than once")


def stored(stack: Stack) -> dict[str, int]:
    """Count what is stored."""
    return {
        "prices": stack.number("SELECT count(*) FROM prices"),
        "statistics": stack.number("SELECT count(*) FROM price_statistics"),
        "alerts": stack.number("SELECT count(*) FROM alerts"),
        "runs": stack.number("SELECT count(*) FROM dag_run", "airflow_sandbox", "postgres"),
        "objects": stack.objects("raw"),
        "messages": len(json.loads(stack.sandbox("/messages"))),
    }


def check_nothing_is_lost(before: dict[str, int], now: dict[str, int]) -> None:
    """Check that every count is at least what it was."""
    lost = {what: (count, now[what]) for what, count in before.items() if now[what] < count}
    check(not lost, f"less than before: {lost}")


def wait_until_processed(stack: Stack, limit: float) -> None:
    """Wait until the warehouse has all raw logs, and every run has succeeded."""

    def processed() -> bool:
        return stack.number("SELECT count(*) FROM raw_prices") == len(stack.raw_lines())

    def active() -> list[str]:
        runs = [run for dag_id in ("ingest_prices", "heal_history", "process_prices") for run in stack.runs(dag_id)]
        failed = [(run["dag_id"], run["dag_run_id"]) for run in runs if run["state"] == "failed"]
        check(not failed, f"failed runs: {failed}")
        return [run["dag_run_id"] for run in runs if run["state"] != "success"]

    wait_for("end of all runs with the raw logs in the warehouse", lambda: not active() and processed(), limit)


def _wait_for_run(stack: Stack, run_id: str, limit: float) -> None:
    def ended() -> str | None:
        state = stack.get(f"/api/v2/dags/ingest_prices/dagRuns/{run_id}").get("state")
        return state if state in {"success", "failed"} else None

    state = wait_for(f"end of {run_id}", ended, limit)
    tasks = {(task["task_id"], task["map_index"]): task["state"] for task in stack.tasks("ingest_prices", run_id)}
    check(state == "success", f"ingest_prices ended as {state}: {tasks}")


def _slow_down(stack: Stack, path: str, *, seconds: int, times: int) -> None:
    fault = {"kind": "slow", "seconds": seconds, "times": times, "path": path}
    stack.sandbox("/sandbox/faults", 8481, fault)


if __name__ == "__main__":
    raise SystemExit(run_with_stacks("coinwatch", test))
