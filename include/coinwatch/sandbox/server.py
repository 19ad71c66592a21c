"""All sandbox services in one process: what `make run` starts."""

import argparse
import contextlib
import logging
import signal
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from coinwatch.sandbox.coingecko import CoinGeckoSandbox
from coinwatch.sandbox.market import Market, RecordedMarket, SimulatedMarket
from coinwatch.sandbox.s3 import S3Sandbox
from coinwatch.sandbox.slack import SlackSandbox

log = logging.getLogger(__name__)

COINGECKO_PORT = 8481
SLACK_PORT = 8482
S3_PORT = 8483
BUCKET = "coinwatch-sandbox"


def _now() -> datetime:
    return datetime.now(UTC)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("--data-dir", type=Path, required=True, help="folder that keeps what the services were told")
    parser.add_argument("--coingecko-port", type=int, default=COINGECKO_PORT)
    parser.add_argument("--slack-port", type=int, default=SLACK_PORT)
    parser.add_argument("--s3-port", type=int, default=S3_PORT)
    parser.add_argument("--bucket", default=BUCKET, help="the S3 bucket that exists")
    parser.add_argument("--prices", type=Path, help="play Bitcoin from this CSV (timestamp,price), not a simulation")


def serve(options: argparse.Namespace) -> int:
    """Run the services until SIGTERM or SIGINT.

    Returns:
        Exit status: 2 if a port is taken or the prices cannot be read.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    folder: Path = options.data_dir
    folder.mkdir(parents=True, exist_ok=True)
    try:
        market: Market = (
            RecordedMarket.from_csv(options.prices, "bitcoin")
            if options.prices
            else SimulatedMarket.kept_in(folder / "market.json", _now())
        )
        with contextlib.ExitStack() as services:
            coingecko = services.enter_context(CoinGeckoSandbox(market, clock=_now, port=options.coingecko_port))
            log.info("CoinGecko (%s prices): %s", market.kind, coingecko.url)
            slack = services.enter_context(
                SlackSandbox(clock=_now, port=options.slack_port, kept_in=folder / "slack.jsonl")
            )
            log.info("Slack: %s", slack.origin)
            s3 = services.enter_context(S3Sandbox(options.bucket, port=options.s3_port, kept_in=folder / "s3.db"))
            log.info("S3: %s, bucket %s", s3.url, s3.bucket)
            log.info("the sandbox is ready")
            stop.wait()
    except (OSError, ValueError) as error:
        log.error("the sandbox cannot start: %s", error)  # noqa: TRY400 - for the operator; the traceback tells nothing more
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
