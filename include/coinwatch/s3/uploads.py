"""What S3 does not have yet: partitions by data hour, and snapshots.

The warehouse keeps a ledger of what S3 has and a list of the partitions that may have changed. A partition leaves the
list only once S3 has its content, so whatever is killed or refused on the way is done by the next run.
"""

import functools
import hashlib
import json
import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import datetime
from itertools import islice
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
from coinwatch.warehouse.log_reader import forget_position, read_new_lines
from coinwatch.warehouse.work import mark_uploads

if TYPE_CHECKING:
    from coinwatch.app import App


log = logging.getLogger(__name__)

NO_BUCKET = "COINWATCH_S3_BUCKET is empty: nothing is uploaded; what waits is uploaded once it is set"

THREADS = 8

_BATCH = 240
"""Objects that are read, uploaded and noted together: what a crash can make us upload twice, unchanged."""

_EMPTY = {
    layer: write_csv(columns, []).encode()
    for layer, columns in (("raw", RAW_COLUMNS), ("processed", PROCESSED_COLUMNS))
}
"""A partition without rows, by layer."""

Partition = tuple[str, datetime]
"""A layer, ``raw`` or ``processed``, and a data hour."""

T = TypeVar("T")


class FileMissing(CoinwatchError):
    """A file that has to be uploaded is not there."""

    retryable = False


def upload_partitions(engine: Engine, store: S3Store, now: datetime) -> Counter[str]:
    """Upload the partitions that have changed.

    A partition is taken off the list only if its rows are still those that were uploaded. That is looked at in the
    transaction that takes it off, while nobody else can put it on: a change that comes in between is never lost.

    Args:
        engine: The warehouse.
        store: Where to.
        now: The time to note.

    Returns:
        Objects uploaded, by layer.

    Raises:
        S3Error: S3 did not take one; those that it took are noted.
    """
    uploaded: Counter[str] = Counter()
    with engine.begin() as connection:
        query = select(schema.pending_uploads).order_by("layer", "hour")
        pending = [(row.layer, row.hour) for row in connection.execute(query)]
    done = 0
    for batch in _batches(pending):
        uploaded += _upload_batch(engine, store, batch, now)
        done += len(batch)
        if len(pending) > _BATCH:
            log.info("%d of %d partitions are done", done, len(pending))
    return uploaded


def _upload_batch(engine: Engine, store: S3Store, batch: Sequence[Partition], now: datetime) -> Counter[str]:
    keys = {partition: store.full_key(partition_key(*partition)) for partition in batch}
    with engine.begin() as connection:
        contents = _read(connection, batch)
        ledger = _ledger(connection, store.bucket, keys.values())
    hashes = {partition: _sha256(body) for partition, body in contents.items()}
    changed = [
        partition
        for partition, body in contents.items()
        # An hour that has lost its rows is emptied; one that never had any is not made.
        if ledger.get(keys[partition], _sha256(_EMPTY[partition[0]])) != hashes[partition]
    ]
    done, failures = _run_all(
        {
            partition: functools.partial(store.put, partition_key(*partition), contents[partition])
            for partition in changed
        }
    )
    uploaded = {partition: hashes[partition] for partition in done}
    with engine.begin() as connection:
        _keep_list_still(connection)
        _note(connection, store.bucket, {keys[partition]: sha256 for partition, sha256 in uploaded.items()}, now)
        failed = set(changed) - set(done)
        rows_now = _read(connection, [partition for partition in batch if partition not in failed])
        _take_off(connection, [partition for partition, body in rows_now.items() if _sha256(body) == hashes[partition]])
    if failures:
        raise failures[0]
    return Counter(layer for layer, _ in done)


def _keep_list_still(connection: Connection) -> None:
    """Wait for those who are putting partitions on the list, and keep others from it until this transaction ends."""
    # On SQLite there is one writer at a time anyway.
    if connection.dialect.name == "postgresql":
        connection.execute(text("LOCK TABLE pending_uploads IN SHARE ROW EXCLUSIVE MODE"))


def _take_off(connection: Connection, partitions: Sequence[Partition]) -> None:
    table = schema.pending_uploads
    for part in _batches(partitions):
        connection.execute(delete(table).where(tuple_(table.c.layer, table.c.hour).in_(part)))


def _read(connection: Connection, partitions: Iterable[Partition]) -> dict[Partition, bytes]:
    """The contents of partitions, each exactly the rows of its hour."""
    hours: dict[str, list[datetime]] = defaultdict(list)
    for layer, hour in partitions:
        hours[layer].append(hour)
    contents = {}
    for layer, of_layer in hours.items():
        rows: dict[datetime, list[Row[Any]]] = {hour: [] for hour in of_layer}
        for first, last in _stretches(sorted(of_layer)):
            for row in connection.execute(_select(layer, first, last + HOUR)):
                rows[floor_hour(row.ts)].append(row)
        for hour, of_hour in rows.items():
            written = _format_raw(of_hour) if layer == "raw" else format_processed(of_hour)
            contents[layer, hour] = written.encode()
    return contents


def _stretches(hours: Sequence[datetime]) -> Iterator[tuple[datetime, datetime]]:
    """Hours without a gap between them, as (first, last): each is one query."""
    start = 0
    for number in range(1, len(hours) + 1):
        if number == len(hours) or hours[number] - hours[number - 1] != HOUR:
            yield hours[start], hours[number - 1]
            start = number


def _select(layer: str, since: datetime, until: datetime) -> Select[Any]:
    if layer == "processed":
        return select_processed(since=since, until=until)
    c = schema.raw_prices.c
    return select(schema.raw_prices).where(c.ts >= since, c.ts < until).order_by(c.coin, c.currency, c.ts, c.source)


def _format_raw(rows: Iterable[Row[Any]]) -> str:
    prices = []
    for row in rows:
        values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public way, underscored for lack of a free name
        prices.append(RawPrice(timestamp=format_time(values.pop("ts")), **values))
    return format_raw_prices(prices)


def upload_archive(engine: Engine, store: S3Store, folder: Path, names: Sequence[str], now: datetime) -> int:
    """Upload snapshots that S3 does not have, each file once and for ever.

    Args:
        engine: The warehouse.
        store: Where to.
        folder: The archive.
        names: Of snapshots.
        now: The time to note.

    Returns:
        Files uploaded.

    Raises:
        S3Error: S3 did not take one; those that it took are noted.
        S3Conflict: S3 has another one by that name; all others were uploaded.
        FileMissing: One is not in the archive; all others were uploaded.
    """
    files = {
        store.full_key(archive_key(name, ending)): (name, ending) for name in names for ending in (".json", ".csv")
    }
    with engine.begin() as connection:
        ledger = _ledger(connection, store.bucket, files)
    uploaded = 0
    failures: list[BaseException] = []
    for batch in _batches([key for key in files if key not in ledger]):
        done, failed = _run_all({key: functools.partial(_upload_file, store, folder, *files[key]) for key in batch})
        with engine.begin() as connection:
            _note(connection, store.bucket, done, now)
        uploaded += len(done)
        failures += failed
        if not all(map(_concerns_one_file, failed)):
            break
    if failures:
        raise failures[0]
    return uploaded


def _upload_file(store: S3Store, folder: Path, name: str, ending: str) -> str:
    path = folder / f"{name}{ending}"
    try:
        body = path.read_bytes()
    except FileNotFoundError:
        raise FileMissing(
            f"{path} is not there, although the manifest names snapshot {name}: bring it back from a backup"
        ) from None
    store.put_once(archive_key(name, ending), body)
    return _sha256(body)


def upload_latest(store: S3Store, coin: str, path: Path) -> int:
    """Upload the whole processed CSV of a coin, over the one that is there.

    Returns:
        Its bytes.

    Raises:
        S3Error: S3 did not take it.
        FileMissing: There is none yet.
    """
    try:
        body = path.read_bytes()
    except FileNotFoundError:
        raise FileMissing(f"{coin} has no processed CSV {path} yet: process_prices writes it") from None
    store.put(latest_key(coin), body)
    return len(body)


def list_all_partitions(connection: Connection) -> None:
    """Put every partition on the list: each is compared with the ledger, and uploaded if S3 does not have it."""
    for layer, table in (("raw", schema.raw_prices), ("processed", schema.price_statistics)):
        hours = {floor_hour(ts) for ts in connection.execute(select(table.c.ts).distinct()).scalars()}
        mark_uploads(connection, layer, hours)


class _NotBegun(Exception):
    """Says of an upload that it was left out, because S3 itself had failed."""


def _run_all(jobs: Mapping[Any, Callable[[], T]]) -> tuple[dict[Any, T], list[BaseException]]:
    """Do all jobs, several at a time; once S3 itself has failed, no other one is begun.

    Returns:
        What the jobs that went well returned, and why others did not, what concerns more than one file first.
    """
    broken = threading.Event()
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="upload")
    try:
        futures = {name: pool.submit(_attempt, job, broken) for name, job in jobs.items()}
        wait(futures.values())
    finally:
        # Whoever ends the task waits for what is on its way, not for what has not begun.
        pool.shutdown(cancel_futures=True)
    done = {name: future.result() for name, future in futures.items() if future.exception() is None}
    failures = [failure for future in futures.values() if (failure := future.exception())]
    failures = [failure for failure in failures if not isinstance(failure, _NotBegun)]
    for failure in failures:
        log.error("%s", failure)
    return done, sorted(failures, key=_concerns_one_file)


def _attempt(job: Callable[[], T], broken: threading.Event) -> T:
    if broken.is_set():
        raise _NotBegun
    try:
        return job()
    except BaseException as failure:
        if not _concerns_one_file(failure):
            broken.set()
        raise


def _concerns_one_file(failure: BaseException) -> bool:
    """Whether others may go well all the same."""
    return isinstance(failure, S3Conflict | FileMissing)


def _batches(items: Sequence[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _ledger(connection: Connection, bucket: str, keys: Iterable[str]) -> dict[str, str]:
    """What S3 has of some keys: key → SHA-256."""
    table = schema.s3_objects
    found: dict[str, str] = {}
    for part in _batches(list(keys)):
        query = select(table.c.key, table.c.sha256).where(table.c.bucket == bucket, table.c.key.in_(part))
        found |= {row.key: row.sha256 for row in connection.execute(query)}
    return found


def _note(connection: Connection, bucket: str, hashes: Mapping[str, str], now: datetime) -> None:
    rows = [{"bucket": bucket, "key": key, "sha256": sha256, "uploaded_at": now} for key, sha256 in hashes.items()]
    upsert(connection, schema.s3_objects, rows)


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
        new = read_new_lines(connection, manifest_log(store), app.archive.manifest)
    if new.restarted:
        log.warning("%s; it is read again, and S3 gets only what it does not have", new.restarted)
    names = [json.loads(line)["name"] for line in new.lines.splitlines()]
    uploaded["archive"] = upload_archive(engine, store, app.settings.archive_path, names, app.clock())
    with engine.begin() as connection:
        new.commit(connection)
    log.info("objects uploaded to s3://%s: %s", store.bucket, uploaded)
    return uploaded


def upload_missing(app: "App") -> dict[str, int]:
    """Upload every partition and snapshot that S3 does not have, whether it has changed or not.

    Returns:
        Objects uploaded, by layer.
    """
    with app.warehouse.begin() as connection:
        list_all_partitions(connection)
        if app.s3 is not None:
            forget_position(connection, manifest_log(app.s3))
    return upload_to_s3(app)


def upload_latest_csvs(app: "App") -> list[str]:
    """Upload the whole processed CSV of each coin.

    Returns:
        The coins.
    """
    if app.s3 is None:
        log.warning(NO_BUCKET)
        return []
    for coin in app.settings.coins:
        upload_latest(app.s3, coin, app.settings.processed_path(coin))
    return list(app.settings.coins)


def manifest_log(store: S3Store) -> str:
    """Return the name of the manifest's position: each bucket, or prefix in it, has its own."""
    return f"manifest:{store.full_key(store.bucket)}"
