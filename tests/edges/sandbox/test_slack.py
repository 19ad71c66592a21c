import re

import pytest
import requests
from slack_sdk.webhook import WebhookClient

from coinwatch.sandbox.market import SimulatedMarket
from coinwatch.sandbox.server import start_sandbox
from coinwatch.sandbox.slack import SlackSandbox, problem, shown


def post(slack, payload):
    answer = requests.post(f"{slack.url}/T/B/x", json=payload, timeout=5)
    return answer.status_code, answer.text


@pytest.fixture
def slack(clock):
    """A Slack with its page."""
    with start_sandbox(SimulatedMarket(clock.now), clock=clock) as sandbox:
        yield sandbox.slack


def articles(slack):
    page = requests.get(slack.origin, timeout=5).text
    return re.findall(r"<article><time>(.*?)</time>\n(.*?)</article>", page, flags=re.DOTALL)


def test_a_message_is_accepted_kept_and_shown(slack):
    assert articles(slack) == []
    assert post(slack, {"text": "<script>"}) == (200, "ok")
    assert list(slack.messages) == [{"received_at": "2026-11-22T12:00:00Z", "payload": {"text": "<script>"}}]
    assert requests.get(f"{slack.origin}/messages", timeout=5).json() == list(slack.messages)
    assert articles(slack) == [("2026-11-22T12:00:00Z", "&lt;script&gt;")]
    assert requests.get(f"{slack.origin}/elsewhere", timeout=5).text == "no_service"


def section(text):
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def header(text):
    return {"type": "header", "text": {"type": "plain_text", "text": text}}


@pytest.mark.parametrize(
    ("payload", "answer"),
    [
        pytest.param([], "invalid_payload", id="no object"),
        pytest.param({}, "no_text", id="empty"),
        pytest.param({"text": 5}, "invalid_payload", id="text is no text"),
        pytest.param({"blocks": ["x"]}, "invalid_blocks", id="block is no object"),
        pytest.param({"blocks": [{"type": "section"}]}, "invalid_blocks", id="empty section"),
        pytest.param({"blocks": [{"type": "context", "elements": []}]}, "invalid_blocks", id="empty context"),
        pytest.param({"blocks": [header("x" * 151)]}, "invalid_blocks", id="header too long"),
        pytest.param({"blocks": [section("x" * 3001)]}, "invalid_blocks", id="text too long"),
        pytest.param({"blocks": [{"type": "divider"}] * 51}, "invalid_blocks", id="too many blocks"),
        pytest.param({"blocks": [header("x" * 150), *[section("x" * 3000)] * 49]}, "", id="the limits themselves"),
    ],
)
def test_what_slack_would_refuse_is_refused_in_its_words(payload, answer):
    assert problem(payload) == answer


def test_a_refused_message_is_not_kept(slack):
    assert post(slack, {}) == (400, "no_text")
    assert requests.post(f"{slack.url}/T/B/x", data=b"payload", timeout=5).text == "invalid_payload"
    assert list(slack.messages) == []


def test_the_real_client_gets_prepared_answers_in_order_and_then_the_usual_one(slack):
    client = WebhookClient(f"{slack.url}/T/B/x", retry_handlers=[])
    slack.answer_next(429, "rate_limited", **{"Retry-After": "30"})
    slack.answer_next(404, "no_service")
    answers = [client.send(text="a") for _ in range(3)]
    assert [(answer.status_code, answer.body) for answer in answers] == [
        (429, "rate_limited"),
        (404, "no_service"),
        (200, "ok"),
    ]
    assert answers[0].headers["Retry-After"] == "30"
    assert len(slack.messages) == 1


def test_the_page_shows_messages_as_people_see_them_the_newest_first(slack):
    blocks = [header("Price alert *"), section("*X &amp; Y &lt;!channel&gt; moved*")]
    context = {"type": "context", "elements": [{"type": "mrkdwn", "text": "<http://a.b/?c=1&amp;d=2|run> · id"}]}
    post(slack, {"text": "first", "blocks": [{"type": "divider"}]})
    post(slack, {"text": "fallback", "blocks": [*blocks, context]})
    assert [html for _, html in articles(slack)] == [
        'Price alert *\n<b>X &amp; Y &lt;!channel&gt; moved</b>\n<a href="http://a.b/?c=1&amp;d=2">run</a> · id',
        "first",
    ]


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("<javascript:alert(1)|x>", "&lt;javascript:alert(1)|x&gt;"),
        ('<https://a.b/"onclick="x|y>', '<a href="https://a.b/&quot;onclick=&quot;x">y</a>'),
        ("<https://a.b|&lt;b&gt;*x*>", '<a href="https://a.b">&lt;b&gt;*x*</a>'),
        ("2*3*4 and *bold* {{ 0 }}", "2*3*4 and <b>bold</b> {{ 0 }}"),
    ],
)
def test_foreign_text_stays_text_on_the_page(text, html):
    assert shown({"text": text}) == html


def test_messages_survive_a_restart_a_torn_line_is_cut_and_a_damaged_file_is_named(clock, tmp_path):
    path = tmp_path / "slack.jsonl"
    for number in range(2):
        with SlackSandbox(clock=clock, kept_in=path) as slack:
            post(slack, {"text": str(number)})
        with path.open("a") as file:
            file.write('{"received_at"')
    with SlackSandbox(clock=clock, kept_in=path) as slack:
        assert [message["payload"]["text"] for message in slack.messages] == ["0", "1"]
    path.write_text("damaged\n")
    with pytest.raises(ValueError, match=str(path)):
        SlackSandbox(clock=clock, kept_in=path)
