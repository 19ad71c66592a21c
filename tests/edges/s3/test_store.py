import hashlib

import pytest

from coinwatch.s3.store import S3Conflict, S3Error, S3Refused, S3Store
from coinwatch.sandbox.http import Response, SandboxServer

KEY = "archive/date=2026-11-22/hour=10/20261122T100000Z.json"


@pytest.fixture
def store(s3_client):
    return S3Store(s3_client, "coinwatch", "team/prices")


class Scripted(SandboxServer):
    """An S3 that gives prepared answers, and repeats the last one."""

    def __init__(self, *answers):
        super().__init__()
        self.answers = list(answers)
        self.asked = []

    def respond(self, request):
        self.asked.append((request.method, request.path))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def problem(status, code):
    return Response(status, f"<Error><Code>{code}</Code><Message>said so</Message></Error>".encode())


@pytest.fixture
def store_at(open_s3_client):
    """A store whose S3 is at another address."""
    return lambda url: S3Store(open_s3_client(url), "coinwatch")


def test_an_object_is_replaced_and_has_its_content_type_and_its_hash_below_the_prefix(store, s3_client):
    for content in (b"old\n", b"timestamp\n"):
        store.put("latest/bitcoin_processed.csv", content)
    found = s3_client.get_object(Bucket="coinwatch", Key="team/prices/latest/bitcoin_processed.csv")
    assert found["Body"].read() == b"timestamp\n"
    assert found["ContentType"] == "text/csv; charset=utf-8"
    assert found["Metadata"] == {"sha256": hashlib.sha256(b"timestamp\n").hexdigest()}


def test_what_is_written_once_is_never_replaced_and_the_error_names_both_hashes(store, s3_client):
    for _ in range(2):
        store.put_once(KEY, b"ours")
    with pytest.raises(S3Conflict) as caught:
        store.put_once(KEY, b"theirs")
    names = (f"s3://coinwatch/team/prices/{KEY}", *(hashlib.sha256(each).hexdigest() for each in (b"ours", b"theirs")))
    assert all(name in str(caught.value) for name in names)
    assert not caught.value.retryable
    assert s3_client.get_object(Bucket="coinwatch", Key=store.full_key(KEY))["Body"].read() == b"ours"


def test_an_object_of_unknown_hash_is_a_conflict(store, s3_client):
    s3_client.put_object(Bucket="coinwatch", Key=store.full_key(KEY), Body=b"{}")
    with pytest.raises(S3Conflict, match="SHA-256 unknown"):
        store.put_once(KEY, b"{}")


def test_a_racing_write_is_tried_again_five_times_at_most(store_at):
    conflict = problem(409, "ConditionalRequestConflict")
    with Scripted(conflict, Response(200, b"")) as s3:
        store_at(s3.origin).put_once(KEY, b"{}")
    assert s3.asked == [("PUT", f"/coinwatch/{KEY}")] * 2
    with Scripted(conflict) as s3, pytest.raises(S3Error, match=KEY) as caught:
        store_at(s3.origin).put_once(KEY, b"{}")
    assert len(s3.asked) == 5
    assert caught.value.retryable


@pytest.mark.parametrize("write", ["put", "put_once"])
def test_a_missing_bucket_needs_an_operator(s3_client, write):
    with pytest.raises(S3Refused, match=rf"s3://nobodys/{KEY} .*COINWATCH_S3_BUCKET") as caught:
        getattr(S3Store(s3_client, "nobodys"), write)(KEY, b"{}")
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("status", "code", "error", "words"),
    [
        pytest.param(403, "AccessDenied", S3Refused, "aws_default", id="permission"),
        pytest.param(503, "SlowDown", S3Error, "SlowDown: said so", id="outage"),
    ],
)
def test_a_refusal_needs_an_operator_and_an_outage_is_retried(store_at, status, code, error, words):
    with Scripted(problem(status, code)) as s3, pytest.raises(S3Error, match=words) as caught:
        store_at(s3.origin).put(KEY, b"{}")
    assert type(caught.value) is error
    assert caught.value.retryable == (error is S3Error)


def test_an_endpoint_that_does_not_answer_is_named_with_what_to_check(store_at, unused_port):
    with pytest.raises(S3Error, match=rf"{KEY} .*Could not connect .*aws_default") as caught:
        store_at(f"http://127.0.0.1:{unused_port}").put(KEY, b"{}")
    assert caught.value.retryable
