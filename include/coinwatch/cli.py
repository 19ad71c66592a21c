"""The command ``coinwatch``; each subcommand imports what it needs, and no more."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from coinwatch.errors import CoinwatchError, Interrupted


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        if arguments[:1] == ["sandbox"]:
            # It has options of its own, and imports what the image of production does not have.
            from coinwatch.sandbox import server

            return server.main(arguments[1:])
        options = _parser().parse_args(arguments)
        status: int = options.function(options)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except CoinwatchError as error:
        if not isinstance(error, Interrupted):
            sys.stderr.write(f"coinwatch: {error}\n")
        return error.exit_status
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="coinwatch", description="An hourly watch over crypto prices.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("run", help="run everything on this machine (make run)")
    command.add_argument("--live", action="store_true", help="use the real services, not the sandbox")
    command.add_argument("--once", action="store_true", help="end when the first hour went all the way through")
    command.add_argument("--limit", type=_positive, default=15.0, metavar="MINUTES", help="for the first hour (15)")
    command.add_argument("--home", type=Path, help="folder for Airflow's own files (.airflow of the project)")
    command.set_defaults(function=_run)

    commands.add_parser("sandbox", help="run the stand-in CoinGecko, Slack and S3 alone")

    command = commands.add_parser("doctor", help="check settings, key, services, warehouse, disk and clock")
    command.add_argument("--post", action="store_true", help="post a test message to Slack")
    command.set_defaults(function=_doctor)

    command = commands.add_parser("status", help="show prices, statistics, alerts, uploads and what is left to do")
    command.add_argument("--as-of", metavar="TIME", help="prices of this time (the newest ones)")
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(function=_status)

    command = commands.add_parser("backtest", help="the alerts that the rules raise on known prices")
    command.add_argument("--days", type=_positive, default=365.0, help="days before the newest price (365)")
    command.add_argument("--coin", help="CoinGecko id (the first of COINWATCH_COINS)")
    command.add_argument("--csv", type=Path, metavar="FILE", help="timestamp,price instead of the stored prices")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a rule, for a second run")
    command.add_argument("--chart", type=Path, metavar="FILE", help="PNG or SVG (data/backtest-<coin>.png)")
    command.set_defaults(function=_backtest)
    return parser


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < 100_000:
        raise argparse.ArgumentTypeError(f"{text!r}: a number above 0 and below 100,000 is needed")
    return number


def _run(options: argparse.Namespace) -> int:
    from coinwatch.local.run import run
    from coinwatch.settings import PROJECT_DIR, load_settings

    homes, limit = (options.home or PROJECT_DIR / ".airflow").absolute(), 60 * options.limit
    return run(load_settings(), homes, os.environ, _say, live=options.live, once=options.once, limit=limit)


def _doctor(options: argparse.Namespace) -> int:
    _use_airflow()
    from coinwatch import doctor
    from coinwatch.app import utc_now

    return doctor.run(_say, utc_now, post_message=options.post)


def _status(options: argparse.Namespace) -> int:
    _use_airflow()
    from coinwatch import status
    from coinwatch.app import App
    from coinwatch.local.report import format_status
    from coinwatch.times import parse_time

    app = App()
    result = status.read(app, parse_time(options.as_of) if options.as_of else None)
    _say(result.model_dump_json() if options.json else format_status(result, app.settings))
    return 0


def _backtest(options: argparse.Namespace) -> int:
    from coinwatch.backtest.command import backtest, parse_changes
    from coinwatch.backtest.values import csv_values, stored_values
    from coinwatch.rules import load_rules
    from coinwatch.settings import load_settings

    settings = load_settings()
    rules = load_rules(settings.config)
    coin = options.coin or settings.coins[0]
    changes = parse_changes(options.set)
    if options.csv is not None:
        values = csv_values(options.csv, coin, settings.currency)
    else:
        _use_airflow()
        from coinwatch.app import App

        values = stored_values(App(settings).warehouse, coin, settings.currency)
    chart = options.chart or settings.data_dir / f"backtest-{coin}.png"
    backtest(values, coin, settings.currency, options.days, rules, changes, chart)
    return 0


def _use_airflow() -> None:
    """Give this process Airflow's connections, without its log; call it before Airflow is imported."""
    from coinwatch.local.environment import read_env_file
    from coinwatch.settings import PROJECT_DIR

    if "AIRFLOW_HOME" not in os.environ:
        home = PROJECT_DIR / ".airflow" / "live"
        os.environ |= {"AIRFLOW_HOME": str(home)} | read_env_file(home / "env")
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "CRITICAL"
    # Only a server reads connections from Airflow's database.
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"


def _say(text: str) -> None:
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError:
        # The terminal was closed, or the program behind the pipe ended.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Interrupted(signal.SIGPIPE) from None


if __name__ == "__main__":
    raise SystemExit(main())
