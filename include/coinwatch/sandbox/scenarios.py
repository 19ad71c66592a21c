"""Scenarios to try on the running sandbox: buttons on its page, and the same by POST."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flask

from coinwatch.sandbox.coingecko import CoinGeckoSandbox
from coinwatch.sandbox.http import SandboxServer
from coinwatch.sandbox.market import DROP, SimulatedMarket
from coinwatch.sandbox.s3 import S3Sandbox
from coinwatch.sandbox.slack import SlackSandbox, shown
from coinwatch.times import format_time

RETRY_AFTER = 120

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
    "X-Frame-Options": "DENY",
}


class Sandbox(NamedTuple):
    """The services while they are running."""

    coingecko: CoinGeckoSandbox
    slack: SlackSandbox
    s3: S3Sandbox

    def fail_coingecko(self, kind: str, **options: Any) -> None:
        """Switch on one fault of CoinGecko in place of the others."""
        self.coingecko.recover()
        self.coingecko.fail(kind, **options)

    def drop(self) -> None:
        """Let Bitcoin fall; recorded prices stay what they are."""
        if isinstance(self.coingecko.market, SimulatedMarket):
            self.coingecko.market.drop(self.coingecko.clock())

    def recover(self) -> None:
        """Switch everything off but the market's own moves."""
        self.coingecko.recover()
        self.slack.is_down = self.s3.is_down = False

    def active(self) -> Iterator[str]:
        """Yield what is switched on, a line each."""
        for fault in self.coingecko.faults:
            since = f" since {format_time(fault.since)}" if fault.since else ""
            times = f", for {fault.times} more answers" if fault.times else ""
            yield f"CoinGecko: {fault.kind}{since}{times}"
        if self.slack.is_down:
            yield "Slack: answers 503"
        if self.s3.is_down:
            yield "S3: answers 503"
        if isinstance(self.coingecko.market, SimulatedMarket):
            for at in self.coingecko.market.drops:
                yield f"Market: Bitcoin fell by {DROP:.0%} at {format_time(at)} (stays)"


class Scenario(NamedTuple):
    """A button."""

    title: str
    start: Callable[[Sandbox], None]


def _stop_slack(sandbox: Sandbox) -> None:
    sandbox.slack.is_down = True


def _stop_s3(sandbox: Sandbox) -> None:
    sandbox.s3.is_down = True


SCENARIOS = {
    "fall": Scenario(f"Bitcoin falls by {DROP:.0%}", Sandbox.drop),
    "frozen": Scenario("The price feed freezes", lambda sandbox: sandbox.fail_coingecko("feed_frozen")),
    "rate-limited": Scenario(
        f"CoinGecko answers 429, Retry-After {RETRY_AFTER} s",
        lambda sandbox: sandbox.fail_coingecko("rate_limited", retry_after=RETRY_AFTER),
    ),
    "coingecko-down": Scenario("CoinGecko is down", lambda sandbox: sandbox.fail_coingecko("unavailable")),
    "slack-down": Scenario("Slack is down", _stop_slack),
    "s3-down": Scenario("S3 is down", _stop_s3),
    "recover": Scenario("All well again", Sandbox.recover),
}


def add_page(sandbox: Sandbox) -> None:
    """Serve the page and the scenarios from CoinGecko's and Slack's ports."""

    def page() -> flask.Response:
        messages = [(message["received_at"], shown(message["payload"])) for message in reversed(sandbox.slack.messages)]
        content = flask.render_template(
            "sandbox.html",
            kind=sandbox.coingecko.market.kind,
            active=list(sandbox.active()),
            scenarios=SCENARIOS,
            messages=messages,
        )
        return flask.make_response(content, _HEADERS)

    def start(name: str) -> Any:
        scenario = SCENARIOS.get(name)
        if scenario is None:
            return {"error": f"unknown scenario {name!r}; known are {', '.join(SCENARIOS)}"}, 404
        scenario.start(sandbox)
        return flask.redirect("/", 303)

    services: tuple[SandboxServer, ...] = (sandbox.coingecko, sandbox.slack)
    for service in services:
        service.app.get("/")(page)
        service.app.post("/sandbox/scenarios/<name>")(start)
