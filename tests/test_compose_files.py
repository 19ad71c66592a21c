"""docker-compose.yaml, Dockerfile and .env.example agree with each other and with the code."""

import re
from pathlib import Path

import pytest
import yaml

from coinwatch.compose import layout
from coinwatch.compose.secrets import ALL
from coinwatch.settings import Settings

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def text() -> str:
    return (PROJECT / "docker-compose.yaml").read_text()


@pytest.fixture(scope="module")
def services(text) -> dict:
    return yaml.safe_load(text)["services"]


def test_every_variable_is_explained_and_none_that_does_not_exist(text, services):
    passed_on = {name for name, value in services["scheduler"]["environment"].items() if value is None}
    used = set(re.findall(r"\$\{(\w+)", text)) | passed_on
    explained = set(re.findall(r"^#?(\w+)=", (PROJECT / ".env.example").read_text(), re.MULTILINE))
    assert explained - {"COMPOSE_PROFILES"} == used - {"COINWATCH_TAG", "AWS_REGION"}


def test_every_secret_can_stand_in_env(services):
    told = {name for name, value in services["prepare"]["environment"].items() if value == f"${{{name}:-}}"}
    assert {secret.variable for secret in ALL} <= told


def test_every_setting_reaches_the_tasks_and_is_checked_before_anything_starts(services):
    # The data folder is where it is mounted.
    settings = {f"COINWATCH_{name.upper()}" for name in Settings.model_fields if not name.endswith(("path", "dir"))}
    for service in ("prepare", "scheduler", "worker"):
        assert settings <= set(services[service]["environment"])


def test_no_password_stands_in_a_file(text):
    told = re.findall(r"^\s+(\w*(?:PASSWORD|SECRET|KEY)\w*): (.*)$", text, re.MULTILINE)
    assert {value for name, value in told if value not in {f"${{{name}:-}}", "/run/coinwatch/postgres/password"}} == {
        f"cat /run/coinwatch/airflow/{name}" for name in ("fernet_key", "jwt_secret", "secret_key")
    }
    values = re.findall(r"^\w*(?:PASSWORD|SECRET|KEY)=(.*)$", (PROJECT / ".env.example").read_text(), re.MULTILINE)
    assert set(values) == {""}


def test_every_service_has_a_health_check_a_limit_rotation_and_a_restart_policy(services):
    for name, service in services.items():
        assert service["healthcheck"]["test"], name
        assert service["mem_limit"], name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name
        assert service["restart"] == ("no" if name in {"prepare", "init"} else "unless-stopped"), name


def test_ports_are_published_on_loopback_and_only_those_of_pages(services):
    assert {name: service["ports"] for name, service in services.items() if "ports" in service} == {
        "api-server": ["${COINWATCH_BIND:-127.0.0.1}:${COINWATCH_PORT:-8080}:8080"],
        "sandbox": ["${COINWATCH_BIND:-127.0.0.1}:${COINWATCH_SLACK_PORT:-8482}:8482"],
    }
    assert {name for name, service in services.items() if "outside" not in service["networks"]} == {
        "prepare",
        "postgres",
        "redis",
        "init",
    }


def test_the_folders_are_mounted_where_the_code_looks(services):
    mounted = {volume.rpartition(":")[2] for volume in services["prepare"]["volumes"]}
    folders = (layout.KEPT, layout.AIRFLOW, layout.INIT, layout.POSTGRES, layout.REDIS, layout.DATA)
    assert {str(folder) for folder in folders} <= mounted
    for name, host in (
        ("sandbox", layout.SANDBOX_HOST),
        ("redis", layout.REDIS_HOST),
        ("postgres", layout.POSTGRES_HOST),
    ):
        assert services[name]["networks"]["internal"]["aliases"] == [host]


def test_the_image_is_that_of_the_locked_airflow():
    (version,) = re.findall(r"^apache-airflow==(\S+)", (PROJECT / "requirements.txt").read_text(), re.MULTILINE)
    assert f"AIRFLOW_IMAGE=apache/airflow:{version}-python3.12" in (PROJECT / "Dockerfile").read_text()


def test_the_values_for_kubernetes_say_the_same_as_the_code_and_the_compose_file(services):
    values = yaml.safe_load((PROJECT / "docs" / "helm-values.yaml").read_text())
    (version,) = re.findall(r"^apache-airflow==(\S+)", (PROJECT / "requirements.txt").read_text(), re.MULTILINE)
    assert values["airflowVersion"] == version
    assert [mount["mountPath"] for mount in values["volumeMounts"]] == [str(layout.DATA)]
    environment = services["scheduler"]["environment"]
    told = {entry["name"]: entry["value"] for entry in values["env"]}
    assert told["PYTHONPATH"] == str(layout.DATA.parent / "include")
    assert set(told) | {entry["envName"] for entry in values["secret"]} <= set(environment)
    options = {
        f"AIRFLOW__{section.upper()}__{name.upper()}": value
        for section, settings in values["config"].items()
        for name, value in settings.items()
        if section != "logging"
    }
    # Sizes are the cluster's own.
    sizes = {"AIRFLOW__CORE__PARALLELISM", "AIRFLOW__CELERY__WORKER_CONCURRENCY"}
    assert {name: environment[name] for name in options if name not in sizes} == {
        name: value for name, value in options.items() if name not in sizes
    }
