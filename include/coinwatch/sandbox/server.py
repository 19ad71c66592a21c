"""All sandbox services in one process: what `make run` starts."""

import argparse
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from coinwatch.sandbox.coingecko import CoinGeckoSandbox
from coinwatch.sandbox.http import HOST, CannotListen
from coinwatch.sandbox.market import Market, RecordedMarket, SimulatedMarket
from coinwatch.sandbox.s3 import S3Sandbox
from coinwatch.sandbox.scenarios import Sandbox, add_page
from coinwatch.sandbox.slack import SlackSandbox

log = logging.getLogger(__name__)

COINGECKO_PORT = 8481
SLACK_PORT = 8482
S3_PORT = 8483
BUCKET = "coinwatch-sandbox"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the services listen; 0 is any free port."""

    coingecko: int = 0
    slack: int = 0
    s3: int = 0
    host: str = HOST


ANY_PORTS = Ports()


def _now() -> datetime:
    return datetime.now(UTC)


@contextlib.contextmanager
def start_sandbox(
    market: Market,
    *,
    clock: Callable[[], datetime],
    ports: Ports = ANY_PORTS,
    bucket: str = BUCKET,
    folder: Path | None = None,
    per_minute: int | None = None,
) -> Iterator[Sandbox]:
    """Run all services until the block is left.

    Args:
        market: Where the prices come from.
        clock: The services' time.
        ports: Where they listen.
        bucket: The S3 bucket that exists.
        folder: Keeps messages and objects; without one they are lost at the end.
        per_minute: Requests of one key that CoinGecko answers in a minute; None: no limit.

    Raises:
        CannotListen: A port is taken or not allowed; the message names the service.
        ValueError: S3 does not allow the bucket's name, or a kept file is damaged.
    """
    kept = (folder / "slack.jsonl", folder / "s3.db") if folder else (None, None)
    with contextlib.ExitStack() as services:
        with _named("CoinGecko"):
            coingecko = CoinGeckoSandbox(
                market, clock=clock, port=ports.coingecko, host=ports.host, per_minute=per_minute
            )
            services.enter_context(coingecko)
        with _named("Slack"):
            slack = SlackSandbox(clock=clock, port=ports.slack, kept_in=kept[0], host=ports.host)
            services.enter_context(slack)
        with _named("S3"):
            s3 = services.enter_context(S3Sandbox(bucket, port=ports.s3, kept_in=kept[1], host=ports.host))
        sandbox = Sandbox(coingecko, slack, s3)
        add_page(sandbox)
        log.info("CoinGecko (%s prices): %s", market.kind, coingecko.url)
        log.info("Slack: %s", slack.url)
        log.info("S3: %s, bucket %s", s3.url, s3.bucket)
        log.info("page with all messages, and with faults to switch on: %s", coingecko.origin)
        yield sandbox


@contextlib.contextmanager
def _named(service: str) -> Iterator[None]:
    """Name the service whose port is taken."""
    try:
        yield
    except CannotListen as error:
        raise CannotListen(
            f"{service}: {error}. End what uses it, or choose another one with --{service.lower()}-port"
        ) from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("--data-dir", type=Path, required=True, help="folder that keeps messages and objects")
    parser.add_argument("--coingecko-port", type=int, default=COINGECKO_PORT)
    parser.add_argument("--slack-port", type=int, default=SLACK_PORT)
    parser.add_argument("--s3-port", type=int, default=S3_PORT)
    parser.add_argument("--host", default=HOST, help="address to listen on (127.0.0.1); 0.0.0.0 in a container")
    parser.add_argument("--bucket", default=BUCKET, help="the S3 bucket that exists")
    parser.add_argument("--per-minute", type=int, help="requests that CoinGecko answers in a minute (no limit)")
    parser.add_argument("--prices", type=Path, help="play Bitcoin from this CSV (timestamp,price), not a simulation")


def serve(options: argparse.Namespace) -> int:
    """Run the services until SIGTERM or SIGINT.

    Returns:
        Exit status: 2 if a port is taken or a file is unreadable.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    folder: Path = options.data_dir
    ports = Ports(options.coingecko_port, options.slack_port, options.s3_port, options.host)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        market: Market = (
            RecordedMarket.from_csv(options.prices, "bitcoin")
            if options.prices
            else SimulatedMarket.kept_in(folder / "market.json", _now())
        )
        with start_sandbox(
            market, clock=_now, ports=ports, bucket=options.bucket, folder=folder, per_minute=options.per_minute
        ):
            log.info("the sandbox is ready")
            stop.wait()
    except (CannotListen, OSError, ValueError) as error:
        log.error("the sandbox cannot start: %s", error)
        return 2
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the services as a command of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    logging.basicConfig(level=logging.INFO, format="sandbox: %(message)s")
    return serve(parser.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
