import pytest

from coinwatch.coingecko.answers import read_json
from coinwatch.coingecko.client import CoinGeckoClient
from coinwatch.coingecko.response_errors import BadRequest, Unavailable
from coinwatch.sandbox.http import Response, SandboxServer


class Elsewhere(SandboxServer):
    """A host that redirects."""

    def __init__(self, clock):
        super().__init__(clock)
        self.requests = []

    def respond(self, request):
        self.requests.append(request)
        return Response(302, b"", {"Location": f"{self.origin}/stolen", "Retry-After": "7", "X-Secret": "x"})


class OpenGate:
    """A meter without a limit."""

    def wait_turn(self, _):
        pass


@pytest.fixture
def elsewhere(clock):
    with Elsewhere(clock) as server:
        yield server


@pytest.mark.parametrize(("plan", "header"), [("demo", "x-cg-demo-api-key"), ("pro", "x-cg-pro-api-key")])
def test_the_key_goes_into_the_plans_header_and_follows_no_redirect(elsewhere, clock, plan, header):
    client = CoinGeckoClient(elsewhere.origin, clock=clock, meter=OpenGate(), api_key="secret", plan=plan)
    answer = client.simple_price(["bitcoin"], "usd")
    (request,) = elsewhere.requests
    assert request.headers[header] == "secret"
    assert request.headers["user-agent"].startswith("coinwatch/")
    assert "secret" not in str(request.query)
    assert answer.status == 302
    with pytest.raises(BadRequest, match="HTTP 302"):
        read_json(answer)


def test_of_the_headers_those_that_matter_are_kept(elsewhere, clock):
    answer = CoinGeckoClient(elsewhere.origin, clock=clock, meter=OpenGate()).simple_price(["bitcoin"], "usd")
    assert answer.headers == {"date": "Sun, 22 Nov 2026 12:00:00 GMT", "retry-after": "7"}
    assert answer.fetched_at == "2026-11-22T12:00:00Z"


def test_without_an_answer_it_is_unavailable_and_the_key_stays_secret(unused_port, clock):
    client = CoinGeckoClient(f"http://127.0.0.1:{unused_port}/api/v3", clock=clock, meter=OpenGate(), api_key="secret")
    with pytest.raises(Unavailable, match="no answer from CoinGecko to GET http://127") as failure:
        client.simple_price(["bitcoin"], "usd")
    assert "secret" not in str(failure.value)
