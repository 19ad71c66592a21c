import stat

import pytest
from cryptography.fernet import Fernet, MultiFernet

from coinwatch.compose import secrets
from coinwatch.compose.secrets import ALL, check_secrets, keep_secrets, write_private
from coinwatch.local.errors import WrongInput


def test_what_is_made_is_as_it_has_to_be(tmp_path):
    values, new = keep_secrets({}, tmp_path)
    assert new == list(ALL)
    check_secrets({secret.variable: value for secret, value in values.items()})
    assert len(set(values.values())) == len(ALL)
    Fernet(values[secrets.FERNET_KEY])
    assert len(values[secrets.JWT_SECRET].encode()) == 64


def test_it_is_kept_for_the_next_start(tmp_path):
    values, _ = keep_secrets({}, tmp_path)
    assert keep_secrets({}, tmp_path) == (values, [])
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o400}


def test_what_stands_in_env_goes_before_it_and_is_kept_too(tmp_path):
    keep_secrets({}, tmp_path)
    told = {"ADMIN_PASSWORD": "of the operator's own"}
    for environ in (told, {"ADMIN_PASSWORD": ""}):
        values, new = keep_secrets(environ, tmp_path)
        assert (values[secrets.ADMIN_PASSWORD], new) == ("of the operator's own", [])


def test_what_was_encrypted_with_an_old_fernet_key_can_still_be_read(tmp_path):
    values, _ = keep_secrets({}, tmp_path)
    encrypted = Fernet(values[secrets.FERNET_KEY]).encrypt(b"connection")
    newer = secrets.new_fernet_key()
    values, _ = keep_secrets({"FERNET_KEY": newer}, tmp_path)
    first, *others = values[secrets.FERNET_KEY].split(",")
    assert first == newer
    assert MultiFernet([Fernet(key) for key in (first, *others)]).decrypt(encrypted) == b"connection"
    # And so it stays, whatever the next start finds.
    assert keep_secrets({"FERNET_KEY": newer}, tmp_path)[0] == values
    assert keep_secrets({}, tmp_path)[0] == values


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        pytest.param("FERNET_KEY", "c2hvcnQ=", "32 bytes in URL-safe base64 are needed", id="key too short"),
        pytest.param("FERNET_KEY", "not base64!", "32 bytes in URL-safe base64 are needed", id="no base64"),
        pytest.param("JWT_SECRET", "s" * 63, "at least 64 characters without spaces", id="JWT secret too short"),
        pytest.param("SECRET_KEY", "s " * 40, "at least 64 characters without spaces", id="spaces"),
        pytest.param("ADMIN_PASSWORD", "admin", "at least 12 printable characters", id="short password"),
        pytest.param("WAREHOUSE_PASSWORD", "with@an-at-sign", "letters, digits, '.', '_', '~' and '-'", id="no URL"),
    ],
)
def test_what_is_malformed_is_said_in_a_line_without_the_value(variable, value, said):
    with pytest.raises(WrongInput) as failure:
        check_secrets({variable: value})
    assert str(failure.value).startswith(f"{variable} in .env: ")
    assert said in str(failure.value)
    assert value not in str(failure.value)
    assert "\n" not in str(failure.value)


def test_everything_that_is_malformed_is_said_at_once():
    with pytest.raises(WrongInput) as failure:
        check_secrets({"ADMIN_PASSWORD": "short", "JWT_SECRET": "short", "FERNET_KEY": ""})
    assert [line.partition(" ")[0] for line in str(failure.value).splitlines()] == ["JWT_SECRET", "ADMIN_PASSWORD"]


def test_a_private_file_takes_the_place_of_an_old_one(tmp_path):
    path = tmp_path / "secret"
    for content in ("one", "two"):
        write_private(path, content)
        assert path.read_text() == content
    assert [file.name for file in tmp_path.iterdir()] == ["secret"]
