"""Scenarios to try on the running sandbox: buttons on its page, and the same by POST."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flask

from coinwatch.sandbox.coingecko import CoinGeckoSandbox
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

    def fall(self) -> None:
        """Let Bitcoin fall; recorded prices stay what they are."""
        if isinstance(self.coingecko.market, SimulatedMarket):
            self.coingecko.market.drop(self.coingecko.clock())

    def stop_slack(self) -> None:
        """Let Slack answer 503."""
        self.slack.is_down = True

    def stop_s3(self) -> None:
        """Let S3 answer 503."""
        self.s3.is_down = True

    def recover(self) -> None:
        """End all faults and outages; what the market did stays."""
        self.coingecko.recover()
        self.slack.is_down = self.s3.is_down = False

    def active(self) -> Iterator[str]:
        """Yield what is switched on, a line each."""
        for fault in self.coingecko.faults:
            since = f" since {format_time(fault.since)}" if fault.since else ""
            times = f", for {fault.times} more answers" if fault.times else ""
            yield f"CoinGecko: {fault.kind}{since}{times}"
        for service in (self.slack, self.s3):
            if service.is_down:
                yield f"{service.name}: answers 503"
        if isinstance(self.coingecko.market, SimulatedMarket):
            for at in self.coingecko.market.drops:
                yield f"Market: Bitcoin fell by {DROP:.0%} at {format_time(at)} (stays)"


SCENARIOS: dict[str, tuple[str, Callable[[Sandbox], None]]] = {
    "fall": (f"Bitcoin falls by {DROP:.0%}", Sandbox.fall),
    "frozen": ("The price feed freezes", lambda sandbox: sandbox.fail_coingecko("feed_frozen")),
    "rate-limited": (
        f"CoinGecko answers 429, Retry-After {RETRY_AFTER} s",
        lambda sandbox: sandbox.fail_coingecko("rate_limited", retry_after=RETRY_AFTER),
    ),
    "coingecko-down": ("CoinGecko is down", lambda sandbox: sandbox.fail_coingecko("unavailable")),
    "slack-down": ("Slack is down", Sandbox.stop_slack),
    "s3-down": ("S3 is down", Sandbox.stop_s3),
    "recover": ("All well again", Sandbox.recover),
}
"""Title and effect of each button, by name."""


def add_page(sandbox: Sandbox) -> None:
    """Serve the page and the scenarios from CoinGecko's and Slack's ports."""

    def page() -> flask.Response:
        content = flask.render_template(
            "sandbox.html",
            kind=sandbox.coingecko.market.kind,
            active=list(sandbox.active()),
            scenarios=SCENARIOS,
            messages=[(each["received_at"], shown(each["payload"])) for each in reversed(sandbox.slack.messages)],
        )
        return flask.make_response(content, _HEADERS)

    def start(name: str) -> Any:
        if name not in SCENARIOS:
            return {"error": f"unknown scenario {name!r}; known are {', '.join(SCENARIOS)}"}, 404
        SCENARIOS[name][1](sandbox)
        return flask.redirect("/", 303)

    for app in (sandbox.coingecko.app, sandbox.slack.app):
        app.get("/")(page)
        app.post("/sandbox/scenarios/<name>")(start)
