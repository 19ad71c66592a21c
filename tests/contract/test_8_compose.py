"""Contract, section 8: docker-compose.yaml, Dockerfile, .env.example and the code agree."""

import re
from pathlib import Path

import pytest
import yaml

from coinwatch.compose import prepare
from coinwatch.compose.secrets import SECRETS
from coinwatch.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]


class _Loader(yaml.SafeLoader):
    """YAML with Compose's `!reset`."""


_Loader.add_constructor("!reset", lambda _loader, _node: None)


def load(name: str) -> dict:
    return yaml.load((PROJECT / name).read_text(), _Loader)  # noqa: S506 - a SafeLoader


@pytest.fixture(scope="module")
def text() -> str:
    return (PROJECT / "docker-compose.yaml").read_text()


@pytest.fixture(scope="module")
def services() -> dict:
    return load("docker-compose.yaml")["services"]


@pytest.fixture(scope="module")
def sandbox() -> dict:
    return load("docker-compose.sandbox.yaml")["services"]


def test_every_variable_is_explained_and_every_explained_one_exists(text, services):
    passed_on = {
        name
        for service in ("prepare", "scheduler")
        for name, value in services[service]["environment"].items()
        if value is None
    }
    used = set(re.findall(r"\$\{(\w+)", text)) | passed_on
    explained = set(re.findall(r"^#?(\w+)=", (PROJECT / ".env.example").read_text(), re.MULTILINE))
    assert explained - {"COMPOSE_PROFILES", "COMPOSE_FILE", "COINWATCH_SLACK_PORT"} == used - {
        "COINWATCH_TAG",
        "AWS_REGION",
    }


def test_every_setting_reaches_the_tasks_and_is_checked_before_anything_starts(services):
    # The data folder is where it is mounted.
    settings = {f"COINWATCH_{name.upper()}" for name in Settings.model_fields if not name.endswith(("path", "dir"))}
    for service in ("prepare", "scheduler", "worker"):
        assert settings <= set(services[service]["environment"])
    assert set(SECRETS) <= set(services["prepare"]["environment"])


def test_no_secret_is_in_a_file(text):
    secret = r"^\s*(\w*(?:PASSWORD|SECRET|KEY)\w*)[:=] *(.+)$"
    assert {value for _, value in re.findall(secret, text, re.MULTILINE)} == {
        "/run/coinwatch/secrets/POSTGRES_PASSWORD",
        *(f"cat /run/coinwatch/airflow/{name}" for name in ("fernet_key", "jwt_secret", "secret_key")),
    }
    assert not re.findall(secret, (PROJECT / ".env.example").read_text(), re.MULTILINE)


def test_every_service_has_a_health_check_limits_rotation_and_a_restart_policy(services, sandbox):
    for name, service in {**services, "sandbox": sandbox["sandbox"]}.items():
        assert service["healthcheck"]["test"], name
        assert service["mem_limit"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name
        assert service["restart"] == ("no" if name in {"prepare", "init"} else "unless-stopped"), name


def test_only_pages_are_published_and_only_on_loopback(services, sandbox):
    assert {name: service["ports"] for name, service in {**services, **sandbox}.items() if "ports" in service} == {
        "sandbox": ["${COINWATCH_BIND:-127.0.0.1}:${COINWATCH_SLACK_PORT:-8482}:8482"],
    }
    assert services["api-server"]["ports"] == ["${COINWATCH_BIND:-127.0.0.1}:${COINWATCH_PORT:-8080}:8080"]
    assert {name for name, service in services.items() if "outside" not in service["networks"]} == {
        "prepare",
        "postgres",
        "redis",
        "init",
    }


def test_secrets_are_mounted_only_where_they_are_needed(services):
    mounts = {name: {v.split(":")[0]: v.split(":")[1] for v in s["volumes"]} for name, s in services.items()}
    assert {name for name, of in mounts.items() if "secrets" in of} == {"prepare", "postgres", "redis", "init"}
    assert {name for name, of in mounts.items() if "secrets-airflow" not in of} == {"postgres", "redis"}
    assert {of["secrets"] for of in mounts.values() if "secrets" in of} == {str(prepare.SECRETS)}
    assert {of["secrets-airflow"] for of in mounts.values() if "secrets-airflow" in of} == {str(prepare.AIRFLOW)}
    assert mounts["prepare"]["./data"] == str(prepare.DATA)


def test_nothing_of_the_user_reaches_the_sandbox(services, sandbox):
    for name in ("prepare", "init", "api-server", "scheduler", "dag-processor", "triggerer", "worker"):
        inherited = services[name]["environment"]
        real = {
            variable
            for variable in inherited
            if variable.startswith(("AIRFLOW_CONN_", "AWS_", "BITCOIN_", "COINWATCH_S3_", "COINWATCH_HEARTBEAT"))
        }
        environment = sandbox[name]["environment"]
        assert real - {"AWS_REGION"} <= set(environment), name
        for variable, value in inherited.items():
            if "@postgres/" in str(value) and not variable.startswith("AIRFLOW_CONN_"):
                assert environment[variable] == f"{value}_sandbox", name
        assert environment["AIRFLOW_CONN_WAREHOUSE_DEFAULT"] == "postgres://coinwatch@postgres/warehouse_sandbox"
        assert environment["COINWATCH_DATA_DIR"] == "/opt/airflow/data/sandbox-compose"


def test_the_image_has_the_locked_airflow():
    (version,) = re.findall(r"^apache-airflow==(\S+)", (PROJECT / "requirements.txt").read_text(), re.MULTILINE)
    assert f"AIRFLOW_IMAGE=apache/airflow:{version}-python3.12" in (PROJECT / "Dockerfile").read_text()


def test_the_values_for_kubernetes_agree_with_the_compose_file(services):
    values = load("docs/helm-values.yaml")
    (version,) = re.findall(r"^apache-airflow==(\S+)", (PROJECT / "requirements.txt").read_text(), re.MULTILINE)
    assert values["airflowVersion"] == version
    assert [mount["mountPath"] for mount in values["volumeMounts"]] == [str(prepare.DATA)]
    environment = services["scheduler"]["environment"]
    env = {entry["name"]: entry["value"] for entry in values["env"]}
    assert env["PYTHONPATH"] == environment["PYTHONPATH"]
    assert set(env) | {entry["envName"] for entry in values["secret"]} <= set(environment)
    options = {
        f"AIRFLOW__{section.upper()}__{name.upper()}": value
        for section, settings in values["config"].items()
        for name, value in settings.items()
        if section != "logging"
    }
    # Sizes depend on the cluster.
    sizes = {"AIRFLOW__CORE__PARALLELISM", "AIRFLOW__CELERY__WORKER_CONCURRENCY"}
    assert {name: environment[name] for name in options.keys() - sizes} == {
        name: value for name, value in options.items() if name not in sizes
    }
