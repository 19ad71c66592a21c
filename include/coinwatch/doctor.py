"""`coinwatch doctor`: check everything the pipeline needs, one line each, with what to do.

It sends one request to CoinGecko, which counts; posts to Slack only with --post; leaves nothing in the bucket.
"""

import logging
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import urlsplit

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from coinwatch import status
from coinwatch.app import App, base_url, coingecko_plan, find_connection
from coinwatch.archive.snapshots import Answer
from coinwatch.coingecko.answers import read_quotes
from coinwatch.coingecko.requests import COINS_PER_REQUEST
from coinwatch.coingecko.response_errors import CoinGeckoError
from coinwatch.errors import CoinwatchError
from coinwatch.files import create_file, locked
from coinwatch.s3.store import S3Conflict
from coinwatch.settings import COINGECKO_CONN_ID, SLACK_CONN_ID, SettingsError, load_settings
from coinwatch.slack.blocks import SlackMessage
from coinwatch.slack.webhook import MessageRefused
from coinwatch.tasks import COINGECKO_POOL
from coinwatch.times import compact_time, format_time
from coinwatch.warehouse import schema

Verdict = Literal["ok", "warn", "FAIL"]
"""``warn``: the pipeline works, with limits; ``FAIL``: it does not work."""

Result = tuple[Verdict, str]

FREE_BYTES = 2**30
"""A year of one coin takes about 100 MB; Airflow's logs soon fill a disk with less than this."""

CLOCK_SKEW = timedelta(minutes=2)
"""S3 refuses requests that are 15 minutes off; prices get wrong hours long before."""

HOSTS = {"pro": "pro-api.coingecko.com", "demo": "api.coingecko.com", "keyless": "api.coingecko.com"}


def run(say: Callable[[str], None], now: Callable[[], datetime], *, post_message: bool) -> int:
    """Make all checks, print a line for each, and return the exit status: 1 if the pipeline does not work."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    verdicts = []
    for check, verdict, text in examine(now, post_message=post_message):
        say(f"{verdict:<5} {check:<10} {' '.join(text.split())}")
        verdicts.append(verdict)
    failed, warned = verdicts.count("FAIL"), verdicts.count("warn")
    say(f"{len(verdicts)} checks: {failed} failed, {warned} with a warning")
    return 1 if failed else 0


def examine(now: Callable[[], datetime], *, post_message: bool) -> Iterator[tuple[str, Verdict, str]]:
    """Make all checks, of which none stops the others; yield name, verdict and text of each."""
    try:
        app = App(load_settings(), now)
    except SettingsError as error:
        yield "settings", "FAIL", str(error)
        return
    answer: list[Answer] = []
    checks: dict[str, Callable[[], Result]] = {
        "settings": lambda: _settings(app),
        "airflow": _airflow,
        "key": _key,
        "coingecko": lambda: _coingecko(app, answer),
        "clock": lambda: _clock(app, answer),
        "slack": lambda: _slack(app, post_message=post_message),
        "s3": lambda: _s3(app),
        "warehouse": lambda: _warehouse(app),
        "disk": lambda: _disk(app),
    }
    for name, check in checks.items():
        try:
            yield name, *check()
        except SQLAlchemyError as error:
            yield name, "FAIL", f"the database does not answer: {str(error).splitlines()[0]}"
        except (CoinwatchError, OSError) as error:
            yield name, "FAIL", str(error)


def _settings(app: App) -> Result:
    settings = app.settings
    app.rules.for_coin(settings.coins[0])
    coins = f"{status.named(settings.coins)} in {settings.currency}"
    return "ok", f"{coins}; {settings.history_days} days of history; data in {settings.data_dir}"


def _airflow() -> Result:
    from airflow.models.pool import Pool
    from airflow.utils.session import create_session

    home = os.environ.get("AIRFLOW_HOME", "~/airflow")
    try:
        with create_session() as session:
            slots = session.scalar(select(Pool.slots).where(Pool.pool == COINGECKO_POOL))
    except SQLAlchemyError as error:
        text = f"the database does not answer ({str(error).splitlines()[0]}): only connections of the environment work"
        return "FAIL", f"{text}. Start Airflow once (`make run LIVE=1`), or correct AIRFLOW_HOME, which is {home}"
    if slots is None:
        text = f"no pool {COINGECKO_POOL}: tasks that poll CoinGecko never start (AIRFLOW_HOME is {home})"
        return "FAIL", f'{text}. Run `airflow pools set {COINGECKO_POOL} 2 "Requests to CoinGecko"`'
    return "ok", f"the database answers, pool {COINGECKO_POOL} has {slots} slots ({home})"


def _key() -> Result:
    connection = find_connection(COINGECKO_CONN_ID)
    plan = coingecko_plan(connection)
    if connection is None:
        return "warn", f"no connection {COINGECKO_CONN_ID}: keyless requests are unreliable; a demo key is free"
    url = base_url(connection)
    host = urlsplit(url).hostname
    if host in HOSTS.values() and host != HOSTS[plan]:
        text = f"connection {COINGECKO_CONN_ID}: plan {plan} needs https://{HOSTS[plan]}/api/v3, but the host is {url}"
        return "FAIL", f'{text}. Correct the host, or "plan" in the extra'
    if plan == "keyless":
        return "warn", f"connection {COINGECKO_CONN_ID} has no key (password): requests to {url} are keyless"
    return "ok", f"a {plan} key for {url}"


def _coingecko(app: App, answer: list[Answer]) -> Result:
    coins = app.settings.coins[:COINS_PER_REQUEST]
    try:
        answer.append(app.client.simple_price(coins, app.settings.currency))
    except CoinGeckoError as error:
        if error.answer:
            answer.append(error.answer)
        raise
    rows, rejects = read_quotes(answer[0], coins, app.settings.currency, app.clock(), "doctor")
    text = f"{len(rows)} of {len(coins)} coins have a price"
    if rejects:
        reasons = "; ".join(f"{reject.coin}: {reject.reason}" for reject in rejects)
        return ("warn" if rows else "FAIL"), f"{text}; {reasons}"
    return "ok", f"{text}: {status.named([f'{row.coin} {row.price}' for row in rows])}"


def _clock(app: App, answer: list[Answer]) -> Result:
    date = answer[0].headers.get("date", "") if answer else ""
    try:
        seconds = round((app.clock() - parsedate_to_datetime(date)).total_seconds())
    except (ValueError, TypeError):
        return "warn", f"not compared: CoinGecko's answer has no time ({date!r})"
    if abs(seconds) > CLOCK_SKEW.total_seconds():
        text = f"this machine is {abs(seconds)} s {'ahead of' if seconds > 0 else 'behind'} CoinGecko"
        return "FAIL", f"{text}: set the clock (chrony, systemd-timesyncd), or prices get wrong hours"
    return "ok", f"{abs(seconds)} s from CoinGecko's"


def _slack(app: App, *, post_message: bool) -> Result:
    if app.slack.alerts is None:
        return "warn", f"no connection {SLACK_CONN_ID} (type slackwebhook): alerts are stored and not delivered"
    webhooks = [webhook for webhook in (app.slack.alerts, app.slack.failures) if webhook is not None]
    for webhook in webhooks:
        if post_message:
            webhook.post(SlackMessage("Coinwatch: test message of `coinwatch doctor --post`.", []))
            continue
        # A webhook that works refuses a message without text, and posts nothing.
        with suppress(MessageRefused):
            webhook.post(SlackMessage("", []))
    names = " and ".join(webhook.conn_id for webhook in webhooks)
    return "ok", f"{names}: test message posted" if post_message else f"{names} accept messages; nothing was posted"


def _s3(app: App) -> Result:
    store = app.s3
    if store is None:
        return "warn", "COINWATCH_S3_BUCKET is empty: nothing is uploaded"
    key = f"doctor/{compact_time(app.clock())}-{secrets.token_hex(4)}.json"
    where = f"s3://{store.bucket}/{store.full_key('')}"
    store.put_once(key, b'{"written": "first"}')
    try:
        store.put_once(key, b'{"written": "second"}')
    except S3Conflict:
        is_kept = True
    else:
        is_kept = False
    finally:
        left = store.delete(key)
    if not is_kept:
        return "FAIL", f"{where} ignores If-None-Match, so a snapshot could be overwritten: use storage that honours it"
    text = f"{where} is writable, and writes an object only once"
    return ("warn", f"{text}; {left}") if left else ("ok", text)


def _warehouse(app: App) -> Result:
    url = app.warehouse.url.render_as_string(hide_password=True)
    found = status.read(app)
    newest = max((coin.last for coin in found.coins if coin.last), default=None)
    prices = f"{sum(coin.rows for coin in found.coins):,} prices" + (f" up to {format_time(newest)}" if newest else "")
    text = f"{url} has schema {schema.VERSION} and {prices}"
    if found.budget is not None:
        text += f". {found.budget}"
    if found.issues:
        text += f". Open issues: {'; '.join(issue.title for issue in found.issues)}"
    is_fine = not found.issues and not (found.budget and found.budget.is_short)
    return ("ok" if is_fine else "warn"), text


def _disk(app: App) -> Result:
    folder = app.settings.archive_path
    probe = folder / f".doctor-{secrets.token_hex(4)}"
    try:
        with locked(probe):
            create_file(probe, b"")
    except OSError as error:
        needed = f"the user with id {os.getuid()} must be able to write there, with hard links and flock"
        return "FAIL", f"{folder} is not usable ({error.strerror}): {needed}. Or correct COINWATCH_DATA_DIR"
    finally:
        for path in folder.glob(f"*{probe.name}*"):
            path.unlink()
    free = shutil.disk_usage(folder).free
    text = f"{folder} is writable; {free / 2**30:,.1f} GiB are free"
    return ("ok", text) if free >= FREE_BYTES else ("warn", f"{text}: make room")
