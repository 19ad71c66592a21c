"""All sandbox services in one process: what `make run` starts."""

import argparse
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from coinwatch.sandbox.coingecko import CoinGeckoSandbox
from coinwatch.sandbox.http import HOST
from coinwatch.sandbox.market import Market, RecordedMarket, SimulatedMarket
from coinwatch.sandbox.s3 import S3Sandbox
from coinwatch.sandbox.scenarios import Sandbox, add_page
from coinwatch.sandbox.slack import SlackSandbox

log = logging.getLogger(__name__)

PORT = 8481
"""CoinGecko's; Slack and S3 have the two ports after it."""

BUCKET = "coinwatch-sandbox"


def _now() -> datetime:
    return datetime.now(UTC)


@contextlib.contextmanager
def start_sandbox(
    market: Market,
    *,
    clock: Callable[[], datetime],
    port: int = 0,
    host: str = HOST,
    folder: Path | None = None,
) -> Iterator[Sandbox]:
    """Run CoinGecko, Slack and S3 until the block is left.

    Args:
        market: Where the prices come from.
        clock: The services' time.
        port: The first of three; 0 is any free one for each.
        host: Where they listen.
        folder: Keeps messages and objects; without one they are lost at the end.
    """
    ports = [port + number if port else 0 for number in range(3)]
    messages, objects = (folder / "slack.jsonl", folder / "s3.db") if folder else (None, None)
    with (
        CoinGeckoSandbox(market, clock=clock, port=ports[0], host=host) as coingecko,
        SlackSandbox(clock=clock, port=ports[1], kept_in=messages, host=host) as slack,
        S3Sandbox(BUCKET, port=ports[2], kept_in=objects, host=host) as s3,
    ):
        sandbox = Sandbox(coingecko, slack, s3)
        add_page(sandbox)
        log.info("CoinGecko (%s prices): %s", market.kind, coingecko.url)
        log.info("Slack: %s", slack.url)
        log.info("S3: %s, bucket %s", s3.url, s3.bucket)
        log.info("page with all messages, and with faults to switch on: %s", coingecko.origin)
        yield sandbox


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the services until SIGTERM or SIGINT; return 2 if a port is taken or a file is unreadable."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder that keeps messages and objects")
    parser.add_argument("--port", type=int, default=PORT, help="CoinGecko's; Slack and S3 have the two after it (8481)")
    parser.add_argument("--host", default=HOST, help="address to listen on (127.0.0.1); 0.0.0.0 in a container")
    parser.add_argument("--prices", type=Path, help="play Bitcoin from this CSV (timestamp,price), not a simulation")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="sandbox: %(message)s")
    folder = options.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        market: Market = (
            RecordedMarket.from_csv(options.prices, "bitcoin")
            if options.prices
            else SimulatedMarket.kept_in(folder / "market.json", _now())
        )
        with start_sandbox(market, clock=_now, port=options.port, host=options.host, folder=folder):
            stop = threading.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: stop.set())
            log.info("the sandbox is ready")
            stop.wait()
    except (OSError, ValueError) as error:
        log.error("the sandbox cannot start: %s", error)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
