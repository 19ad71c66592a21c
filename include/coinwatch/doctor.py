"""`coinwatch doctor`: whether everything that the pipeline needs is there and right, one line each, with what to do.

Asks CoinGecko once, which counts; posts nothing to Slack unless asked to; leaves nothing in the bucket.
"""

import errno
import fcntl
import logging
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import urlsplit

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from coinwatch import app as connections
from coinwatch.app import App
from coinwatch.archive.snapshots import Answer
from coinwatch.coingecko.answers import read_quotes
from coinwatch.coingecko.errors import CoinGeckoError
from coinwatch.coingecko.requests import COINS_PER_REQUEST, budget
from coinwatch.errors import CoinwatchError
from coinwatch.rules import load_rules
from coinwatch.s3.store import S3Conflict, S3Store
from coinwatch.settings import (
    COINGECKO_CONN_ID,
    FAILURES_CONN_ID,
    SLACK_CONN_ID,
    Settings,
    SettingsError,
    load_settings,
)
from coinwatch.slack.blocks import SlackMessage
from coinwatch.slack.webhook import MessageRefused, post
from coinwatch.tasks import COINGECKO_POOL
from coinwatch.times import compact_time, format_time
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import WarehouseError

Verdict = Literal["ok", "warn", "FAIL"]

FREE_BYTES = 2**30
"""A year of one coin takes some 100 MB; a disk with less than this is soon full of Airflow's logs."""

CLOCK_SKEW = timedelta(minutes=2)
"""S3 refuses requests that are a quarter of an hour off; prices would be filed under wrong hours long before."""

TEST_MESSAGE = SlackMessage("Coinwatch: a test message, asked for by `coinwatch doctor --post`.", [])

PRO_HOST = "pro-api.coingecko.com"
PUBLIC_HOST = "api.coingecko.com"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found.

    Attributes:
        check: Its name.
        verdict: ``ok``; ``warn`` if the pipeline works, but less than it could; ``FAIL`` if it will not.
        text: What was found, and what to do about it.
    """

    check: str
    verdict: Verdict
    text: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.verdict:<5} {self.check:<10} {' '.join(self.text.split())}"


def examine(now: Callable[[], datetime], *, post_message: bool) -> Iterator[Finding]:
    """Make all checks, one after the other; one that fails stops none of the others.

    Args:
        now: The clock that is checked.
        post_message: Whether to post a test message to Slack.
    """
    try:
        settings = load_settings()
    except SettingsError as error:
        yield Finding("settings", "FAIL", str(error))
        return
    yield _check_settings(settings)
    yield from _guarded("airflow", _check_airflow)
    yield from _guarded("key", _check_key)
    app = App(settings)
    yield from _check_coingecko(app, now)
    yield from _guarded("slack", lambda: _check_slack(app, post_message=post_message))
    yield from _guarded("s3", lambda: _check_s3(app, now()))
    yield from _guarded("warehouse", lambda: _check_warehouse(app.warehouse))
    yield from _guarded("disk", lambda: _check_disk(settings))


def _guarded(check: str, examine_it: Callable[[], Finding]) -> Iterator[Finding]:
    try:
        yield examine_it()
    except (CoinwatchError, WarehouseError) as error:
        yield Finding(check, "FAIL", str(error))
    except SQLAlchemyError as error:
        yield Finding(check, "FAIL", f"its database does not answer: {str(error).splitlines()[0]}")
    except OSError as error:
        yield Finding(check, "FAIL", f"{type(error).__name__}: {error}")


def _check_settings(settings: Settings) -> Finding:
    try:
        load_rules(settings.config)
    except (SettingsError, OSError) as error:
        return Finding("settings", "FAIL", str(error))
    coins = ", ".join(settings.coins[:5]) + (f" and {len(settings.coins) - 5} more" if len(settings.coins) > 5 else "")
    text = f"{coins} in {settings.currency}; {settings.history_days} days of history; data in {settings.data_dir}"
    return Finding("settings", "ok", text)


def _check_airflow() -> Finding:
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session

    home = os.environ.get("AIRFLOW_HOME", "~/airflow")
    try:
        with create_session() as session:
            slots = session.scalar(select(Pool.slots).where(Pool.pool == COINGECKO_POOL))
    except SQLAlchemyError as error:
        return Finding(
            "airflow",
            "FAIL",
            f"its database does not answer ({str(error).splitlines()[0]}), so connections come from the environment "
            f"only: start it once (`make run LIVE=1`), or set AIRFLOW_HOME; it is {home}",
        )
    if slots is None:
        return Finding(
            "airflow",
            "FAIL",
            f"there is no pool {COINGECKO_POOL}, so tasks that ask CoinGecko wait for ever: `airflow pools set "
            f'{COINGECKO_POOL} 1 "Requests to CoinGecko"` (AIRFLOW_HOME is {home})',
        )
    return Finding("airflow", "ok", f"its database answers, and its pool {COINGECKO_POOL} has {slots} slots ({home})")


def _check_key() -> Finding:
    connection = connections.find_connection(COINGECKO_CONN_ID)
    plan = connections.coingecko_plan(connection)
    if connection is None:
        text = f"no connection {COINGECKO_CONN_ID}: CoinGecko is asked without a key, which is unstable"
        return Finding("key", "warn", f"{text}; a demo key is free")
    url = connections.base_url(connection)
    host = urlsplit(url).hostname
    wanted = PRO_HOST if plan == "pro" else PUBLIC_HOST
    if host in (PRO_HOST, PUBLIC_HOST) and host != wanted:
        text = f'a {plan} key goes with https://{wanted}/api/v3, but the host is {url}: correct the host, or "plan"'
        return Finding("key", "FAIL", f"connection {COINGECKO_CONN_ID}: {text} in the extra")
    if plan == "keyless":
        return Finding("key", "warn", f"connection {COINGECKO_CONN_ID} has no key (password): {url} is asked without")
    return Finding("key", "ok", f"a {plan} key for {url}")


def _check_coingecko(app: App, now: Callable[[], datetime]) -> Iterator[Finding]:
    settings = app.settings
    try:
        client = app.client
        answer = client.simple_price(settings.coins[:COINS_PER_REQUEST], settings.currency)
        yield from _check_clock(answer, now())
        yield _judge_prices(answer, settings, now())
    except CoinGeckoError as error:
        if error.answer is not None:
            yield from _check_clock(error.answer, now())
        yield Finding("coingecko", "FAIL", str(error))
        return
    except (CoinwatchError, WarehouseError, OSError) as error:
        yield Finding("coingecko", "FAIL", str(error))
        return
    with suppress(SQLAlchemyError):
        # The warehouse has a line of its own.
        month = budget(app)
        advice = ": watch fewer coins, or take a larger plan" if month.is_short else ""
        yield Finding("budget", "warn" if month.is_short else "ok", f"{month}{advice}")


def _judge_prices(answer: Answer, settings: Settings, now: datetime) -> Finding:
    coins = settings.coins[:COINS_PER_REQUEST]
    rows, rejects = read_quotes(answer, coins, settings.currency, now, "doctor")
    if rejects:
        reasons = "; ".join(f"{reject.coin}: {reject.reason}" for reject in rejects)
        text = f"{len(rows)} of {len(coins)} coins have a price; {reasons}"
        return Finding("coingecko", "warn" if rows else "FAIL", text)
    prices = ", ".join(f"{row.coin} {row.price}" for row in rows[:3])
    return Finding("coingecko", "ok", f"{len(rows)} of {len(coins)} coins have a price: {prices}")


def _check_clock(answer: Answer, now: datetime) -> Iterator[Finding]:
    said = answer.headers.get("date", "")
    try:
        skew = now - parsedate_to_datetime(said)
    except (ValueError, TypeError):
        yield Finding("clock", "warn", f"CoinGecko's answer does not tell the time ({said!r}), so nothing was compared")
        return
    seconds = round(skew.total_seconds())
    if abs(skew) > CLOCK_SKEW:
        text = f"this machine's clock is {abs(seconds)} s {'ahead of' if seconds > 0 else 'behind'} CoinGecko's"
        yield Finding("clock", "FAIL", f"{text}: set it (chrony, systemd-timesyncd), or hours get wrong prices")
    else:
        yield Finding("clock", "ok", f"{abs(seconds)} s off CoinGecko's")


def _check_slack(app: App, *, post_message: bool) -> Finding:
    slack = app.slack
    channels = [(SLACK_CONN_ID, slack.alerts), (FAILURES_CONN_ID, slack.failures)]
    configured = [(conn_id, webhook) for conn_id, webhook in channels if webhook is not None]
    if slack.alerts is None:
        text = f"no connection {SLACK_CONN_ID}: alerts are stored and not delivered"
        return Finding("slack", "warn", f"{text}; make one of type slackwebhook")
    for conn_id, webhook in configured:
        if post_message:
            post(
                webhook, SlackMessage("Coinwatch: a test message, asked for by `coinwatch doctor --post`.", []), conn_id
            )
            continue
        # A message without text is refused for its text by a webhook that works, and posts nothing.
        with suppress(MessageRefused):
            post(webhook, SlackMessage("", []), conn_id)
    names = " and ".join(conn_id for conn_id, _ in configured)
    if post_message:
        return Finding("slack", "ok", f"{names} took a test message")
    return Finding("slack", "ok", f"{names} would take messages; nothing was posted (--post sends a test message)")


def _check_s3(app: App, now: datetime) -> Finding:
    store = app.s3
    if store is None:
        return Finding("s3", "warn", "COINWATCH_S3_BUCKET is empty: nothing is uploaded")
    key = f"doctor/{compact_time(now)}-{secrets.token_hex(4)}.json"
    where = f"s3://{store.bucket}/{store.full_key('')}"
    store.put_once(key, b'{"written": "first"}')
    try:
        refused = _refuses_another(store, key)
    finally:
        left = store.delete(key)
    if not refused:
        return Finding(
            "s3",
            "FAIL",
            f"{where} ignores If-None-Match, so a snapshot could be overwritten: use a storage that honours it",
        )
    rest = f"; {left}" if left else ""
    return Finding("s3", "warn" if left else "ok", f"{where} can be written, and refuses to write once twice{rest}")


def _refuses_another(store: S3Store, key: str) -> bool:
    try:
        store.put_once(key, b'{"written": "second"}')
    except S3Conflict:
        return True
    return False


def _check_warehouse(engine: Engine) -> Finding:
    prices = schema.prices.c
    with engine.begin() as connection:
        rows, newest = connection.execute(select(func.count(), func.max(prices.ts))).one()
    where = engine.url.render_as_string(hide_password=True)
    has = f"{rows:,} prices up to {format_time(newest)}" if rows else "no price yet"
    return Finding("warehouse", "ok", f"{where} has schema {schema.VERSION} and {has}")


def _check_disk(settings: Settings) -> Finding:
    folder = settings.archive_path
    probe = folder / f".doctor-{secrets.token_hex(4)}"
    twin = probe.with_suffix(".twin")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with probe.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.link(probe, twin)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EROFS):
            advice = f"let the user with id {os.getuid()} write there, or set COINWATCH_DATA_DIR to another folder"
        else:
            advice = "the archive needs a file system with hard links and flock: set COINWATCH_DATA_DIR to one"
        return Finding("disk", "FAIL", f"{folder} cannot be used ({error.strerror}): {advice}")
    finally:
        for path in (probe, twin):
            with suppress(OSError):
                path.unlink()
    free = shutil.disk_usage(folder).free
    text = f"{folder} can be written; {free / 2**30:,.0f} GiB are free"
    if free < FREE_BYTES:
        return Finding("disk", "warn", f"{folder} can be written, but only {free // 2**20} MiB are free: make room")
    return Finding("disk", "ok", text)


def run(say: Callable[[str], None], now: Callable[[], datetime], *, post_message: bool) -> int:
    """Make all checks and tell what they found.

    Returns:
        Exit status: 1 if the pipeline will not work as things are.
    """
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    verdicts = []
    for finding in examine(now, post_message=post_message):
        say(str(finding))
        verdicts.append(finding.verdict)
    failed, warned = verdicts.count("FAIL"), verdicts.count("warn")
    say(f"{len(verdicts)} checks: {failed} failed, {warned} with a warning")
    return 1 if failed else 0
