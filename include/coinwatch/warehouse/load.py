"""The step `load_raw_prices`: new lines of the raw logs become raw prices and, unless quarantined, prices."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, bindparam, delete, select

from coinwatch.archive.raw_log import RawLogError, strip_header
from coinwatch.health import issues
from coinwatch.quarantine.held import screen_history, screen_live
from coinwatch.record import RawPrice, parse_raw_prices
from coinwatch.rules import RuleBook
from coinwatch.times import format_time
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import begin_bulk, upsert_changed
from coinwatch.warehouse.log_reader import NewLines, commit_positions, read_logs
from coinwatch.warehouse.prices import accept_prices
from coinwatch.warehouse.work import mark_uploads

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

CHUNK_BYTES = 2_000_000
"""About this much of the raw logs is stored in one transaction (25,000 rows): a kill costs no more."""

RAW_LOG_CHANGED = "raw_log_changed"
"""Key of the pipeline issue about raw logs that somebody has changed."""

_TEXTS = [column.name for column in schema.raw_prices.c if column.name != "ts"]


def load_raw_prices(app: "App") -> int:
    """Load new lines of all raw logs into the warehouse, chunk by chunk.

    Returns:
        How many rows are new or changed.

    Raises:
        RawLogError: Raw logs have unexpected lines; the other logs are loaded.
    """
    unread = {f"raw:{coin}": app.settings.raw_path(coin) for coin in app.settings.coins}
    loaded = 0
    reread: list[str] = []
    errors: list[str] = []
    while unread:
        with begin_bulk(app.warehouse) as connection:
            chunk = read_logs(connection, unread, CHUNK_BYTES)
            # The last log of a full chunk may go on in the next one.
            is_full = sum(len(new.lines) for new in chunk) >= CHUNK_BYTES
            rows: list[RawPrice] = []
            parsed: list[NewLines] = []
            for new in chunk:
                path = unread[new.log]
                if not is_full or new is not chunk[-1]:
                    del unread[new.log]
                try:
                    if new.restarted:
                        _forget_lost_rows(connection, new.log.removeprefix("raw:"), path)
                    rows += _parse(path, new)
                    parsed.append(new)
                except RawLogError as error:
                    errors.append(str(error))
                    unread.pop(new.log, None)
            changed = store_raw_prices(connection, rows, app.rules, app.clock())
            commit_positions(connection, parsed)
            reread += [new.restarted for new in parsed if new.restarted]
            _report_reread_logs(connection, reread, app.clock())
        loaded += len(changed)
        log.info("%d raw logs: %d lines read, %d rows new or changed so far", len(chunk), len(rows), loaded)
    if errors:
        raise RawLogError("\n".join(errors))
    return loaded


def _parse(path: Path, new: NewLines) -> list[RawPrice]:
    lines = strip_header(path, new.lines) if new.start == 0 else new.lines
    try:
        rows = list(parse_raw_prices(lines.decode()))
        for row in rows:
            _check(row)
    except ValueError as error:
        raise RawLogError(
            f"{path} has an unexpected line after byte {new.start}: {error}. Remove it; the lines before that byte are "
            "stored"
        ) from None
    return rows


def _check(row: RawPrice) -> None:
    if format_time(row.moment) != row.timestamp:
        raise ValueError(f"the timestamp {row.timestamp!r} is not written as {format_time(row.moment)}")
    try:
        is_positive = Decimal(row.price) > 0
    except InvalidOperation:
        raise ValueError(f"the price {row.price!r} is not a number") from None
    if not is_positive:
        raise ValueError(f"the price {row.price!r} is not positive")


def _forget_lost_rows(connection: Connection, coin: str, path: Path) -> None:
    """Delete the raw prices that a changed log lost, and have `find_gaps` check the coin's hours again.

    Appends trust the table for what the log has. Prices stay: they were true when they were stored.

    Raises:
        RawLogError: The log has unexpected lines; nothing was deleted.
    """
    content = path.read_bytes() if path.exists() else b""
    whole = NewLines(f"raw:{coin}", content[: content.rfind(b"\n") + 1], 0, "", b"")
    kept = {(row.currency, row.moment, row.source) for row in _parse(path, whole)}
    table = schema.raw_prices
    stored = connection.execute(select(*table.primary_key).where(table.c.coin == coin)).all()
    lost = [row for row in stored if (row.currency, row.ts, row.source) not in kept]
    if lost:
        same = [column == bindparam(f"lost_{column.name}") for column in table.primary_key]
        keys = [{f"lost_{name}": value for name, value in row._asdict().items()} for row in lost]
        connection.execute(delete(table).where(*same), keys)
        mark_uploads(connection, "raw", (row.ts for row in lost))
    connection.execute(delete(schema.checked_hours).where(schema.checked_hours.c.coin == coin))


def _report_reread_logs(connection: Connection, reasons: Sequence[str], now: datetime) -> None:
    """Report logs that are read again; resolve the issue if operators were notified and none is."""
    if reasons:
        log.warning("read again from the beginning, storing nothing twice: %s", "; ".join(reasons))
        issues.report(
            connection,
            RAW_LOG_CHANGED,
            title="A raw log was changed",
            detail="; ".join(reasons[:10]) + ("; …" if len(reasons) > 10 else ""),
            action="Find out who changed it. Nothing is lost: it is read again, and the warehouse keeps its rows. "
            "`replay_archive` rebuilds the log from the snapshots.",
            at=now,
        )
        return
    issue = issues.find(connection, RAW_LOG_CHANGED)
    if issue is not None and issue.notified_state == "open":
        issues.resolve(connection, RAW_LOG_CHANGED, now, "No raw log has changed since.")


def store_raw_prices(
    connection: Connection, rows: Sequence[RawPrice], rules: RuleBook, now: datetime
) -> list[RawPrice]:
    """Store lines of raw logs, and mark the work that follows from them; idempotent.

    Args:
        connection: The caller's transaction.
        rows: In the order of the logs: of two lines with one key the later one counts.
        rules: Decide which values are quarantined.
        now: The present.

    Returns:
        The lines that are new or changed.
    """
    by_key = {(row.coin, row.currency, row.moment, row.source): row for row in rows}
    # asdict() copies each value; a long log has millions of them.
    values = [{"ts": ts, **{name: getattr(row, name) for name in _TEXTS}} for (_, _, ts, _), row in by_key.items()]
    keys = {tuple(key) for key in upsert_changed(connection, schema.raw_prices, values)}
    changed = {key: row for key, row in by_key.items() if key in keys}
    mark_uploads(connection, "raw", (ts for _, _, ts, _ in changed))
    series: dict[str, dict[tuple[str, str], dict[datetime, RawPrice]]]
    series = {"history": defaultdict(dict), "live": defaultdict(dict)}
    for (coin, currency, ts, source), row in changed.items():
        series[source][coin, currency][ts] = row
    # History first: a live price is compared with the price before it.
    accept_prices(connection, screen_history(connection, series["history"], rules, now))
    accept_prices(connection, screen_live(connection, series["live"], rules, now))
    return list(changed.values())
