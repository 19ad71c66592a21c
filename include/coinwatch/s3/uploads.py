"""Upload what S3 does not have yet: partitions by data hour, and snapshots.

The warehouse lists the partitions that may have changed, and the SHA-256 of each partition that S3 has. A partition
leaves the list only when S3 has its content, so the next run uploads what a crash or an outage left. Snapshots never
change and are written once; a position in the manifest suffices.
"""

import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, Engine, Row, Select, delete, select, text, tuple_

from coinwatch.errors import CoinwatchError
from coinwatch.record import RAW_COLUMNS, RawPrice, format_raw_prices, write_csv
from coinwatch.s3.store import S3Conflict, S3Store, archive_key, latest_key, partition_key
from coinwatch.statistics.processed_csv import PROCESSED_COLUMNS, format_processed, select_processed
from coinwatch.times import HOUR, floor_hour, format_time
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import upsert
from coinwatch.warehouse.log_reader import commit_positions, forget_position, read_logs
from coinwatch.warehouse.work import mark_uploads

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

NO_BUCKET = "COINWATCH_S3_BUCKET is empty: nothing is uploaded; once it is set, the next run uploads everything"

THREADS = 8

GROUP = 2 * THREADS
"""Objects that are submitted together: how many uploads an outage can fail."""

BATCH = 240
"""Partitions that are read and noted together: how many a crash can make us upload twice."""

_EMPTY_SHA256 = {
    layer: hashlib.sha256(write_csv(columns, []).encode()).hexdigest()
    for layer, columns in (("raw", RAW_COLUMNS), ("processed", PROCESSED_COLUMNS))
}
"""Of a partition without rows, by layer."""

Partition = tuple[str, datetime]
"""A layer, ``raw`` or ``processed``, and a data hour."""

T = TypeVar("T")


class FileMissing(CoinwatchError):
    """A file to upload does not exist."""

    retryable = False


def upload_to_s3(app: "App") -> dict[str, int]:
    """Upload the partitions that have changed and the snapshots that are new.

    Returns:
        Objects uploaded, by layer; nothing without a bucket.
    """
    store, engine = app.s3, app.warehouse
    if store is None:
        log.warning(NO_BUCKET)
        return {}
    uploaded = dict(upload_partitions(engine, store, app.clock()))
    with engine.begin() as connection:
        (new,) = read_logs(connection, {manifest_log(store): app.archive.manifest})
    if new.restarted:
        log.warning("%s; it is read again, and S3 gets only what it does not have", new.restarted)
    names = [json.loads(line)["name"] for line in new.lines.splitlines()]
    uploaded["archive"] = upload_archive(store, app.settings.archive_path, names)
    with engine.begin() as connection:
        commit_positions(connection, [new])
    log.info("objects uploaded to s3://%s: %s", store.bucket, uploaded)
    return uploaded


def upload_missing(app: "App") -> dict[str, int]:
    """Compare every partition and snapshot with S3, and upload what S3 does not have.

    Returns:
        Objects uploaded, by layer.
    """
    with app.warehouse.begin() as connection:
        for layer, table in (("raw", schema.raw_prices), ("processed", schema.price_statistics)):
            mark_uploads(connection, layer, connection.execute(select(table.c.ts).distinct()).scalars())
        if app.s3 is not None:
            forget_position(connection, manifest_log(app.s3))
    return upload_to_s3(app)


def upload_latest(app: "App") -> list[str]:
    """Upload the whole processed CSV of each coin, and replace the one before.

    Returns:
        The coins.

    Raises:
        FileMissing: A coin has none yet.
    """
    if app.s3 is None:
        log.warning(NO_BUCKET)
        return []
    for coin in app.settings.coins:
        path = app.settings.processed_path(coin)
        if not path.exists():
            raise FileMissing(f"{coin} has no processed CSV {path} yet: run process_prices first")
        app.s3.put(latest_key(coin), path.read_bytes())
    return list(app.settings.coins)


def manifest_log(store: S3Store) -> str:
    """Return the name of the manifest's position: each bucket, or prefix in it, has its own."""
    return f"manifest:{store.full_key(store.bucket)}"


def upload_partitions(engine: Engine, store: S3Store, now: datetime) -> Counter[str]:
    """Upload the listed partitions whose content changed.

    Returns:
        Objects uploaded, by layer.

    Raises:
        S3Error: S3 did not accept one; those that it accepted are noted.
    """
    uploaded: Counter[str] = Counter()
    with engine.begin() as connection:
        query = select(schema.pending_uploads).order_by("layer", "hour")
        pending = [(row.layer, row.hour) for row in connection.execute(query)]
    for number, batch in enumerate(_batches(pending, BATCH), start=1):
        uploaded += _upload_batch(engine, store, batch, now)
        if len(pending) > BATCH:
            log.info("%d of %d partitions are done", min(number * BATCH, len(pending)), len(pending))
    return uploaded


def _upload_batch(engine: Engine, store: S3Store, batch: Sequence[Partition], now: datetime) -> Counter[str]:
    keys = {partition: store.full_key(partition_key(*partition)) for partition in batch}
    table = schema.s3_objects
    with engine.begin() as connection:
        contents = _read(connection, batch)
        query = select(table.c.key, table.c.sha256).where(
            table.c.bucket == store.bucket, table.c.key.in_(keys.values())
        )
        known = {row.key: row.sha256 for row in connection.execute(query)}
    hashes = {partition: hashlib.sha256(body).hexdigest() for partition, body in contents.items()}
    # An hour that lost its rows is emptied; one that never had any is not written.
    changed = [
        partition for partition in batch if known.get(keys[partition], _EMPTY_SHA256[partition[0]]) != hashes[partition]
    ]
    done, failures = _upload_all(lambda partition: store.put(partition_key(*partition), contents[partition]), changed)
    noted = [
        {"bucket": store.bucket, "key": keys[partition], "sha256": hashes[partition], "uploaded_at": now}
        for partition in done
    ]
    failed = set(changed) - set(done)
    with engine.begin() as connection:
        # Wait for transactions that list partitions, and keep others from it. SQLite has one writer at a time anyway.
        if connection.dialect.name == "postgresql":
            connection.execute(text("LOCK TABLE pending_uploads IN SHARE ROW EXCLUSIVE MODE"))
        upsert(connection, table, noted)
        # A partition whose rows changed since they were read stays on the list.
        rows_now = _read(connection, [partition for partition in batch if partition not in failed])
        same = [key for key, body in rows_now.items() if hashlib.sha256(body).hexdigest() == hashes[key]]
        listed = schema.pending_uploads.c
        connection.execute(delete(schema.pending_uploads).where(tuple_(listed.layer, listed.hour).in_(same)))
    if failures:
        raise failures[0]
    return Counter(layer for layer, _ in done)


def _read(connection: Connection, partitions: Iterable[Partition]) -> dict[Partition, bytes]:
    """Return the contents of partitions, each exactly the rows of its hour."""
    hours: dict[str, list[datetime]] = defaultdict(list)
    for layer, hour in partitions:
        hours[layer].append(hour)
    contents: dict[Partition, bytes] = {}
    for layer, of_layer in hours.items():
        rows: dict[datetime, list[Row[Any]]] = {hour: [] for hour in of_layer}
        for first, last in _stretches(sorted(of_layer)):
            until = last + HOUR
            query = select_processed(since=first, until=until) if layer == "processed" else _select_raw(first, until)
            for row in connection.execute(query):
                rows[floor_hour(row.ts)].append(row)
        write = _format_raw if layer == "raw" else format_processed
        contents |= {(layer, hour): write(of_hour).encode() for hour, of_hour in rows.items()}
    return contents


def _stretches(hours: Sequence[datetime]) -> Iterator[tuple[datetime, datetime]]:
    """Yield the first and last hour of each run of consecutive hours: each is one query."""
    start = 0
    for number in range(1, len(hours) + 1):
        if number == len(hours) or hours[number] - hours[number - 1] != HOUR:
            yield hours[start], hours[number - 1]
            start = number


def _select_raw(since: datetime, until: datetime) -> Select[Any]:
    c = schema.raw_prices.c
    return select(schema.raw_prices).where(c.ts >= since, c.ts < until).order_by(c.coin, c.currency, c.ts, c.source)


def _format_raw(rows: Iterable[Row[Any]]) -> str:
    values = [dict(row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's public name
    return format_raw_prices(RawPrice(timestamp=format_time(each.pop("ts")), **each) for each in values)


def upload_archive(store: S3Store, folder: Path, names: Iterable[str]) -> int:
    """Upload both files of snapshots; S3 keeps one that it has.

    Returns:
        Files that S3 has now.

    Raises:
        S3Error: S3 did not accept one.
        S3Conflict: S3 has another content for one; all others were uploaded.
        FileMissing: One is not in the archive; all others were uploaded.
    """

    def upload(file: tuple[str, str]) -> None:
        name, ending = file
        path = folder / f"{name}{ending}"
        if not path.exists():
            raise FileMissing(f"{path} is missing, but the manifest names snapshot {name}: restore it from a backup")
        store.put_once(archive_key(name, ending), path.read_bytes())

    done, failures = _upload_all(upload, [(name, ending) for name in names for ending in (".json", ".csv")])
    if failures:
        raise failures[0]
    return len(done)


def _upload_all(upload: Callable[[T], None], items: Sequence[T]) -> tuple[list[T], list[CoinwatchError]]:
    """Upload several at a time; after an outage, submit no more.

    Returns:
        The items that S3 has now, and why others failed, an outage first.
    """

    def attempt(item: T) -> CoinwatchError | None:
        try:
            upload(item)
        except CoinwatchError as error:
            log.error("%s", error)
            return error
        return None

    done: list[T] = []
    failures: list[CoinwatchError] = []
    with ThreadPoolExecutor(THREADS, thread_name_prefix="upload") as pool:
        for group in _batches(items, GROUP):
            results = list(zip(group, pool.map(attempt, group), strict=True))
            done += [item for item, failure in results if failure is None]
            failures += [failure for _, failure in results if failure is not None]
            if not all(map(_concerns_one_file, failures)):
                break
    return done, sorted(failures, key=_concerns_one_file)


def _concerns_one_file(failure: CoinwatchError) -> bool:
    return isinstance(failure, S3Conflict | FileMissing)


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))
