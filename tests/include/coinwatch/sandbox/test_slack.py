import pytest
import requests

from coinwatch.sandbox.slack import SlackSandbox


def post(slack, payload):
    answer = requests.post(f"{slack.url}/T/B/x", json=payload, timeout=5)
    return answer.status_code, answer.text


@pytest.fixture
def slack(clock):
    with SlackSandbox(clock=clock) as slack:
        yield slack


def test_a_message_is_taken_kept_and_shown_with_its_signs_escaped(slack):
    assert "No message yet" in requests.get(slack.origin, timeout=5).text
    assert post(slack, {"text": "<script>"}) == (200, "ok")
    assert list(slack.messages) == [{"received_at": "2026-11-22T12:00:00Z", "payload": {"text": "<script>"}}]
    assert requests.get(f"{slack.origin}/messages", timeout=5).json() == list(slack.messages)
    page = requests.get(slack.origin, timeout=5).text
    assert "&lt;script&gt;" in page
    assert "<script>" not in page


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        pytest.param([], "invalid_payload", id="no object"),
        pytest.param({}, "no_text", id="empty"),
        pytest.param(
            {"blocks": [{"type": "section", "text": {"text": "x" * 3001}}]}, "invalid_blocks", id="text too long"
        ),
        pytest.param({"blocks": [{"type": "divider"}] * 51}, "invalid_blocks", id="too many blocks"),
    ],
)
def test_what_slack_refuses_is_refused_in_its_words(slack, payload, said):
    assert post(slack, payload) == (400, said)
    assert list(slack.messages) == []


def test_scripted_answers_come_in_line_and_take_nothing(slack):
    slack.answer_next(429, "rate_limited", **{"Retry-After": "30"})
    scripted = {"status": 404, "body": "no_service"}
    requests.post(f"{slack.origin}/sandbox/answers", json=scripted, timeout=5)
    assert [post(slack, {"text": "a"}) for _ in range(3)] == [(429, "rate_limited"), (404, "no_service"), (200, "ok")]
    assert len(slack.messages) == 1
    assert requests.post(slack.origin, timeout=5).status_code == 200
    assert requests.get(f"{slack.origin}/elsewhere", timeout=5).text == "no_service"


def test_messages_survive_a_restart(clock, tmp_path):
    for number in range(2):
        with SlackSandbox(clock=clock, kept_in=tmp_path / "slack.jsonl") as slack:
            post(slack, {"text": str(number)})
    assert [message["payload"]["text"] for message in slack.messages] == ["0", "1"]
