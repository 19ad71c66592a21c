"""The command ``coinwatch``; each subcommand imports what it needs, and no more."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand.

    Args:
        arguments: Without the program's name; those of the process, if absent.

    Returns:
        Exit status: 2 if something was asked for that cannot be, 1 if something else went wrong.
    """
    try:
        return _main(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        return 130


def _main(arguments: Sequence[str]) -> int:
    from coinwatch.errors import CoinwatchError
    from coinwatch.local.errors import Interrupted, RunError

    if arguments[:1] == ["sandbox"]:
        return _sandbox(arguments[1:])
    options = _parser().parse_args(arguments)
    try:
        status: int = options.function(options)
    except Interrupted as error:
        return error.status
    except CoinwatchError as error:
        return _complain(str(error), error.exit_status)
    except RunError as error:
        return _complain(str(error), error.status)
    return status


def _complain(text: str, status: int) -> int:
    sys.stderr.write(f"coinwatch: {text}\n")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="coinwatch", description="An hourly watch over crypto prices.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands.add_parser("run", help="run everything on this machine (make run)"))
    _add_load(commands.add_parser("load-airflow-settings", help="load pools, variables and connections from a file"))
    _add_doctor(commands.add_parser("doctor", help="check settings, key, services, warehouse, disk and clock"))
    _add_backtest(commands.add_parser("backtest", help="the alerts that the rules raise on known prices"))
    _add_fault(commands.add_parser("fault", help="switch a fault of the running sandbox's CoinGecko on or off"))
    commands.add_parser("sandbox", help="run the stand-in CoinGecko, Slack and S3 alone")
    return parser


def _sandbox(arguments: Sequence[str]) -> int:
    # It brings options of its own, and imports what a production image does not have.
    from coinwatch.sandbox import server

    logging.basicConfig(level=logging.INFO, format="sandbox: %(message)s")
    return server.main(arguments)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--live", action="store_true", help="use the real services, not the sandbox")
    parser.add_argument("--once", action="store_true", help="end when the first hour went all the way through")
    parser.add_argument("--port", type=_port, help="of Airflow's page (COINWATCH_PORT; 8080)")
    parser.add_argument(
        "--sandbox-port",
        type=_port,
        help="the first of three for the sandbox's services (COINWATCH_SANDBOX_PORT; 8481)",
    )
    parser.add_argument("--limit", type=_minutes, metavar="MINUTES", help="time for the first hour (15)")
    parser.add_argument("--home", type=Path, help="folder for Airflow's own files (.airflow of the project)")
    parser.set_defaults(function=_run)


def _port(text: str) -> int:
    from coinwatch.local.ports import parse_port

    try:
        return parse_port(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0
    if not 0 < minutes < 24 * 60:
        raise argparse.ArgumentTypeError(f"{text!r}: minutes are needed, more than 0 and less than a day")
    return minutes


def _run(options: argparse.Namespace) -> int:
    from coinwatch.local.ports import read_port
    from coinwatch.local.run import LIMIT, PORT, SANDBOX_PORT, RunOptions, run
    from coinwatch.settings import PROJECT_DIR, load_settings

    return run(
        RunOptions(
            project=PROJECT_DIR,
            home=(options.home or PROJECT_DIR / ".airflow").absolute(),
            settings=load_settings(),
            environ=os.environ,
            clock=lambda: datetime.now(UTC),
            live=options.live,
            once=options.once,
            port=options.port or read_port(os.environ, "COINWATCH_PORT", PORT),
            sandbox_port=options.sandbox_port or read_port(os.environ, "COINWATCH_SANDBOX_PORT", SANDBOX_PORT),
            limit=60 * options.limit if options.limit else LIMIT,
        ),
        _say,
    )


def _say(text: str) -> None:
    from coinwatch.local.errors import Interrupted

    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except OSError:
        # Nobody reads any more: the terminal was closed, or the program behind a pipe has ended.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise Interrupted(signal.SIGPIPE) from None


def _add_load(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="airflow_settings.yaml")
    parser.add_argument("--without-connections", action="store_true", help="load pools and variables only")
    parser.set_defaults(function=_load)


def _load(options: argparse.Namespace) -> int:
    from sqlalchemy.exc import OperationalError

    from coinwatch.local.airflow_settings import load_into_airflow, read_airflow_settings
    from coinwatch.local.errors import RunError

    settings = read_airflow_settings(options.file)
    try:
        new = load_into_airflow(settings, with_connections=not options.without_connections)
    except OperationalError as error:
        raise RunError(
            f"{options.file} cannot be loaded: Airflow's database is not ready ({error.orig}). "
            "Run `airflow db migrate` first"
        ) from None
    for kind, names in new.items():
        _say(f"{kind}: {', '.join(names) or 'nothing new'}")
    return 0


def _as_airflow() -> None:
    """Have Airflow's connections, and hear nothing of Airflow; to be called before it is imported."""
    from coinwatch.settings import PROJECT_DIR

    # Without a home of its own, that of `make run LIVE=1`.
    os.environ.setdefault("AIRFLOW_HOME", str(PROJECT_DIR / ".airflow" / "live"))
    os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "CRITICAL"
    # Airflow reads connections from its database only in what it takes for a server.
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"


def _add_backtest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=_days, default=365.0, help="days before the newest price (365)")
    parser.add_argument("--coin", help="CoinGecko id (the first of COINWATCH_COINS)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="timestamp,price instead of the stored prices")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a value of the rules, for a second run beside"
    )
    parser.add_argument(
        "--chart", type=Path, metavar="FILE", help="PNG or SVG (backtest-<coin>.png in the data folder)"
    )
    parser.set_defaults(function=_backtest)


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = 0
    if not 0 < days < 100_000:
        raise argparse.ArgumentTypeError(f"{text!r}: a number of days is needed")
    return days


def _backtest(options: argparse.Namespace) -> int:
    from rich.console import Console

    from coinwatch.backtest.command import backtest, parse_changes
    from coinwatch.backtest.values import csv_values, stored_values
    from coinwatch.rules import load_rules
    from coinwatch.settings import load_settings

    settings = load_settings()
    coin = options.coin or settings.coins[0]
    changes = parse_changes(options.set)
    rules = load_rules(settings.config)
    if options.csv is not None:
        values = csv_values(options.csv, coin, settings.currency)
    else:
        _as_airflow()
        from coinwatch.app import App

        values = stored_values(App(settings).warehouse, coin, settings.currency)
    chart = options.chart or settings.data_dir / f"backtest-{coin}.png"
    console = Console(highlight=False, soft_wrap=True, markup=False)
    backtest(values, coin, settings.currency, options.days, rules, changes, chart, console)
    return 0


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--post", action="store_true", help="post a test message to Slack")
    parser.set_defaults(function=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    _as_airflow()
    from coinwatch import doctor

    return doctor.run(_say, lambda: datetime.now(UTC), post_message=options.post)


def _add_fault(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", nargs="?", help="what goes wrong; without it, what is switched on is listed")
    parser.add_argument("--times", type=int, help="how many answers it befalls (all)")
    parser.add_argument("--retry-after", type=float, help="seconds that an error asks to wait")
    parser.add_argument("--coin", help="whose price is changed (bitcoin)")
    parser.add_argument("--factor", type=float, help="by which price_times multiplies (10)")
    parser.add_argument("--seconds", type=float, help="how late a slow answer is, how old an old price (60)")
    parser.add_argument("--path", help="only requests whose path has this in it")
    parser.add_argument("--clear", action="store_true", help="switch all faults off")
    parser.add_argument("--url", default="http://127.0.0.1:8481", help="of the sandbox's CoinGecko")
    parser.set_defaults(function=_fault)


def _fault(options: argparse.Namespace) -> int:
    from coinwatch.local.sandbox_faults import switch_faults

    names = ("kind", "times", "retry_after", "coin", "factor", "seconds", "path")
    wanted = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    for line in switch_faults(options.url, wanted, clear=options.clear):
        _say(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
