"""What S3 does not have yet: partitions by data hour, and snapshots.

The warehouse keeps a ledger of what S3 has and a list of the partitions that may have changed. A partition leaves the
list only once S3 has its content, so whatever is killed or refused on the way is done by the next run.
"""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, select, tuple_

from coinwatch.records import RawPrice, format_raw_prices
from coinwatch.storage import schema
from coinwatch.storage.processed_rows import format_processed, select_processed
from coinwatch.storage.s3 import S3Store, archive_key, partition_key
from coinwatch.storage.warehouse import upsert
from coinwatch.times import HOUR, floor_hour, format_time

log = logging.getLogger(__name__)

THREADS = 8

_BATCH = 240
"""Partitions that are read, uploaded and noted together: what a crash can make us upload twice, unchanged."""


def upload_partitions(engine: Engine, store: S3Store, now: datetime) -> Counter[str]:
    """Upload the partitions that have changed.

    A partition's content is read in the transaction that takes it from the list. Whoever changes its rows later puts it
    on the list again; only this function takes it off, and `process_prices` runs one at a time.

    Returns:
        Objects uploaded, by layer.

    Raises:
        S3Error: S3 did not take one; those that it took are noted.
    """
    uploaded: Counter[str] = Counter()
    with engine.begin() as connection:
        pending = connection.execute(select(schema.pending_uploads).order_by("layer", "hour")).all()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="upload") as pool:
        for start in range(0, len(pending), _BATCH):
            batch = pending[start : start + _BATCH]
            uploaded += _upload_batch(engine, store, batch, now, pool)
            if len(pending) > _BATCH:
                log.info("%d of %d partitions are done", start + len(batch), len(pending))
    return uploaded


def _upload_batch(
    engine: Engine, store: S3Store, batch: Sequence[Row[Any]], now: datetime, pool: ThreadPoolExecutor
) -> Counter[str]:
    with engine.begin() as connection:
        contents = {
            (layer, hour): body for layer in ("raw", "processed") for hour, body in _read(connection, layer, batch)
        }
        keys = {partition: store.full_key(partition_key(*partition)) for partition in contents}
        ledger = _ledger(connection, store.bucket, keys.values())
    hashes = {partition: hashlib.sha256(body).hexdigest() for partition, body in contents.items()}
    changed = [partition for partition in contents if ledger.get(keys[partition]) != hashes[partition]]
    puts = {partition: pool.submit(store.put, partition_key(*partition), contents[partition]) for partition in changed}
    done = [partition for partition, put in puts.items() if put.exception() is None]
    with engine.begin() as connection:
        _note(connection, store.bucket, {keys[partition]: hashes[partition] for partition in done}, now)
        failed = set(puts) - set(done)
        table = schema.pending_uploads
        settled = [(row.layer, row.hour) for row in batch if (row.layer, row.hour) not in failed]
        for part in (settled[start : start + 100] for start in range(0, len(settled), 100)):
            connection.execute(delete(table).where(tuple_(table.c.layer, table.c.hour).in_(part)))
    for put in puts.values():
        put.result()
    return Counter(layer for layer, _ in done)


def _read(connection: Connection, layer: str, batch: Sequence[Row[Any]]) -> Iterable[tuple[datetime, bytes]]:
    """The contents of the layer's partitions, each exactly the rows of its hour."""
    hours = sorted(row.hour for row in batch if row.layer == layer)
    rows: dict[datetime, list[Row[Any]]] = defaultdict(list)
    for first, last in _stretches(hours):
        query = _select_raw(first, last + HOUR) if layer == "raw" else select_processed(since=first, until=last + HOUR)
        for row in connection.execute(query):
            rows[floor_hour(row.ts)].append(row)
    for hour in hours:
        if rows[hour]:
            yield hour, (_format_raw(rows[hour]) if layer == "raw" else format_processed(rows[hour])).encode()


def _stretches(hours: Sequence[datetime]) -> Iterable[tuple[datetime, datetime]]:
    """Hours without a gap between them, as (first, last): each is one query."""
    start = 0
    for number in range(1, len(hours) + 1):
        if number == len(hours) or hours[number] - hours[number - 1] != HOUR:
            yield hours[start], hours[number - 1]
            start = number


def _select_raw(since: datetime, until: datetime) -> Any:
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
    """
    files = {
        store.full_key(archive_key(name, ending)): (name, ending) for name in names for ending in (".json", ".csv")
    }
    with engine.begin() as connection:
        ledger = _ledger(connection, store.bucket, files)
    bodies = {
        key: (folder / f"{name}{ending}").read_bytes() for key, (name, ending) in files.items() if key not in ledger
    }
    with ThreadPoolExecutor(THREADS, thread_name_prefix="upload") as pool:
        puts = {key: pool.submit(store.put_once, archive_key(*files[key]), body) for key, body in bodies.items()}
    done = {key: hashlib.sha256(bodies[key]).hexdigest() for key, put in puts.items() if put.exception() is None}
    with engine.begin() as connection:
        _note(connection, store.bucket, done, now)
    for put in puts.values():
        put.result()
    return len(done)


def _ledger(connection: Connection, bucket: str, keys: Iterable[str]) -> dict[str, str]:
    """What S3 has of some keys: key → SHA-256."""
    table, wanted = schema.s3_objects, list(keys)
    found: dict[str, str] = {}
    for part in (wanted[start : start + 500] for start in range(0, len(wanted), 500)):
        query = select(table.c.key, table.c.sha256).where(table.c.bucket == bucket, table.c.key.in_(part))
        found |= {row.key: row.sha256 for row in connection.execute(query)}
    return found


def _note(connection: Connection, bucket: str, hashes: dict[str, str], now: datetime) -> None:
    rows = [{"bucket": bucket, "key": key, "sha256": sha256, "uploaded_at": now} for key, sha256 in hashes.items()]
    upsert(connection, schema.s3_objects, rows)


def list_all_partitions(connection: Connection) -> None:
    """Put every partition on the list: each is compared with the ledger, and uploaded if S3 does not have it."""
    for layer, table in (("raw", schema.raw_prices), ("processed", schema.price_statistics)):
        hours = {floor_hour(ts) for ts in connection.execute(select(table.c.ts).distinct()).scalars()}
        upsert(connection, schema.pending_uploads, [{"layer": layer, "hour": hour} for hour in sorted(hours)])
