import re

import pytest
import requests
from slack_sdk.webhook import WebhookClient

from coinwatch.sandbox.slack import SlackSandbox
from coinwatch.slack.messages import AlertNote, alert_message


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
        pytest.param({"text": 5}, "invalid_payload", id="text is no text"),
        pytest.param({"blocks": {}}, "no_text", id="no blocks"),
        pytest.param({"blocks": ["x"]}, "invalid_blocks", id="block is no object"),
        pytest.param({"blocks": [{"type": "section"}]}, "invalid_blocks", id="empty section"),
        pytest.param({"blocks": [{"type": "context", "elements": []}]}, "invalid_blocks", id="empty context"),
        pytest.param(
            {"blocks": [{"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}]},
            "invalid_blocks",
            id="header too long",
        ),
        pytest.param(
            {"blocks": [{"type": "section", "fields": [{"text": "x"}] * 11}]}, "invalid_blocks", id="too many fields"
        ),
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


def test_what_is_no_json_is_refused(slack):
    answer = requests.post(f"{slack.url}/T/B/x", data=b"payload", timeout=5)
    assert (answer.status_code, answer.text) == (400, "invalid_payload")


def test_the_limits_themselves_are_allowed(slack):
    sections = [{"type": "section", "text": {"type": "mrkdwn", "text": "x" * 3000}}] * 49
    header = {"type": "header", "text": {"type": "plain_text", "text": "x" * 150}}
    assert post(slack, {"blocks": [header, *sections]}) == (200, "ok")


def test_the_real_client_sees_what_the_real_slack_would_say(slack):
    client = WebhookClient(f"{slack.url}/T/B/x", retry_handlers=[])
    slack.answer_next(429, "rate_limited", **{"Retry-After": "30"})
    refused, taken = client.send(text="a"), client.send(text="b")
    assert (refused.status_code, refused.body, refused.headers["Retry-After"]) == (429, "rate_limited", "30")
    assert (taken.status_code, taken.body) == (200, "ok")


def test_the_page_shows_messages_as_people_see_them_the_newest_first(slack, clock):
    note = AlertNote(
        id="a-1",
        coin="x",
        rule="move_1h",
        state="firing",
        severity="critical",
        message="X & Y <!channel> moved",
        ts=clock.now,
        value=4.0,
        threshold=3.0,
        facts="Rule move_1h: from +3.00 % on",
        chart="",
    )
    message = alert_message([note], "http://127.0.0.1:8080/run?a=1&b=2", simulated=True)
    post(slack, {"text": "first"})
    post(slack, {"text": message.text, "blocks": message.blocks})
    answer = requests.get(slack.origin, timeout=5)
    articles = re.findall(r"<article>.*?</article>", answer.text, flags=re.DOTALL)
    assert articles == [
        (
            "<article><time>2026-11-22T12:00:00Z</time>\n[SIMULATED] Price alert\n"
            ":rotating_light: <b>X &amp; Y &lt;!channel&gt; moved</b>\n"
            "Rule move_1h: from +3.00 % on · critical · 2026-11-22 12:00 UTC\n"
            "Simulated prices (sandbox): nothing has happened in the real market.\n"
            '<a href="http://127.0.0.1:8080/run?a=1&amp;b=2">run</a> · alert `a-1`</article>'
        ),
        "<article><time>2026-11-22T12:00:00Z</time>\nfirst</article>",
    ]
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; style-src 'unsafe-inline'"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<javascript:alert(1)|x>", "&lt;javascript:alert(1)|x&gt;"),
        ('<https://a.b/"onclick="x|y>', '<a href="https://a.b/&quot;onclick=&quot;x">y</a>'),
        ("<https://a.b|&lt;b&gt;*x*>", '<a href="https://a.b">&lt;b&gt;*x*</a>'),
        ("2*3*4 and *bold* {0}", "2*3*4 and <b>bold</b> {0}"),
    ],
)
def test_foreign_text_stays_text_on_the_page(slack, text, shown):
    post(slack, {"text": text})
    assert f"\n{shown}</article>" in requests.get(slack.origin, timeout=5).text


def test_blocks_without_text_do_not_break_the_page(slack):
    assert post(slack, {"text": "below", "blocks": [{"type": "divider"}]}) == (200, "ok")
    assert post(slack, {"blocks": [{"type": "image", "image_url": "https://a.b"}]}) == (200, "ok")
    assert "\nbelow</article>" in requests.get(slack.origin, timeout=5).text


@pytest.mark.parametrize(
    "scripted", ["5", "{}", '{"status": "429"}', '{"status": 99}', "{", '{"status": 429, "body": 5}']
)
def test_an_answer_that_cannot_be_given_is_refused(slack, scripted):
    answer = requests.post(f"{slack.origin}/sandbox/answers", data=scripted, timeout=5)
    assert answer.status_code == 400
    assert '"Retry-After": "30"' in answer.json()["error"]
    assert post(slack, {"text": "a"}) == (200, "ok")


def test_a_line_that_was_torn_by_a_crash_is_cut_and_the_others_are_kept(clock, tmp_path):
    path = tmp_path / "slack.jsonl"
    whole = '{"received_at": "2026-11-22T12:00:00Z", "payload": {"text": "whole"}}\n'
    path.write_text(whole + '{"received_at"')
    with SlackSandbox(clock=clock, kept_in=path) as slack:
        assert [message["payload"] for message in slack.messages] == [{"text": "whole"}]
    assert path.read_text() == whole


def test_a_file_that_holds_no_messages_is_named_with_its_line(clock, tmp_path):
    path = tmp_path / "slack.jsonl"
    path.write_text("{}\n")
    with pytest.raises(ValueError, match="line 1 is no message") as caught:
        SlackSandbox(clock=clock, kept_in=path)
    assert str(caught.value) == (f"{path}, line 1 is no message (KeyError('received_at')): correct or remove the file")
