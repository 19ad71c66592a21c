import os
import stat

import pytest
from cryptography.fernet import Fernet, MultiFernet

from coinwatch.compose import secrets
from coinwatch.compose.secrets import SECRETS, check_secrets, keep_secrets
from coinwatch.errors import CoinwatchError
from coinwatch.secret_values import new_airflow_secrets


@pytest.fixture(autouse=True)
def _own_files(monkeypatch):
    # Only root may give files to another user.
    monkeypatch.setattr(secrets, "AIRFLOW_UID", os.geteuid())
    monkeypatch.setattr(secrets.os, "chown", lambda *_: None)


def test_generated_secrets_are_valid_and_kept(tmp_path):
    values, generated = keep_secrets({}, tmp_path)
    assert generated == list(SECRETS)
    check_secrets(values)
    assert len(set(values.values())) == len(SECRETS)
    Fernet(values["FERNET_KEY"])
    # Bytes that HMAC-SHA512, which signs Airflow's tokens, needs.
    assert len(values["JWT_SECRET"].encode()) == 64
    assert keep_secrets({}, tmp_path) == (values, [])
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == values
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o440}


def test_a_value_of_env_replaces_the_kept_one(tmp_path):
    keep_secrets({}, tmp_path)
    for environ in ({"ADMIN_PASSWORD": "of the operator"}, {"ADMIN_PASSWORD": ""}):
        values, generated = keep_secrets(environ, tmp_path)
        assert (values["ADMIN_PASSWORD"], generated) == ("of the operator", [])


def test_a_new_fernet_key_is_put_before_the_old_ones(tmp_path):
    old = keep_secrets({}, tmp_path)[0]["FERNET_KEY"]
    encrypted = Fernet(old).encrypt(b"connection")
    new = new_airflow_secrets()["FERNET_KEY"]
    assert keep_secrets({"FERNET_KEY": new}, tmp_path)[0]["FERNET_KEY"] == f"{new},{old}"
    assert MultiFernet([Fernet(new), Fernet(old)]).decrypt(encrypted) == b"connection"
    for environ in ({"FERNET_KEY": new}, {}):
        assert keep_secrets(environ, tmp_path)[0]["FERNET_KEY"] == f"{new},{old}"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        pytest.param("FERNET_KEY", "c2hvcnQ=", id="short key"),
        pytest.param("FERNET_KEY", "not base64!", id="not base64"),
        pytest.param("JWT_SECRET", "s" * 63, id="short token"),
        pytest.param("SECRET_KEY", "s " * 40, id="spaces"),
        pytest.param("ADMIN_PASSWORD", "admin", id="short password"),
        pytest.param("ADMIN_PASSWORD", "with\ta tab in it", id="not printable"),
        pytest.param("WAREHOUSE_PASSWORD", "with@an-at-sign", id="not for a URL"),
    ],
)
def test_a_malformed_value_is_refused_in_a_line_without_it(variable, value):
    with pytest.raises(CoinwatchError) as failure:
        check_secrets({variable: value})
    assert str(failure.value).startswith(f"{variable} in .env: ")
    assert value not in str(failure.value)
    assert "\n" not in str(failure.value)
