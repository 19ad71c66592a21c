"""The processed CSV of a coin: every row with its statistics, ascending (contract, section 5)."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from coinwatch.files import replace_file
from coinwatch.record import write_csv
from coinwatch.statistics.processed_rows import PROCESSED_COLUMNS, format_processed, select_processed
from coinwatch.times import format_time
from coinwatch.warehouse.work import clear_work, pending_work

if TYPE_CHECKING:
    from coinwatch.app import App


HEADER = write_csv(PROCESSED_COLUMNS, []).encode()


def write_processed_csv(connection: Connection, path: Path, coin: str, since: datetime) -> None:
    """Write a coin's processed CSV anew from a time on; a reader sees the old file or the new one.

    What stands before that time is copied, not computed: an hour costs no more after ten years than on the first day.
    A file that is missing, or is none of ours, is written whole.
    """
    kept = _lines_before(path, format_time(since))
    select_from = since if kept else None
    rows = connection.execute(select_processed(coin=coin, since=select_from)).all()
    replace_file(path, (kept or HEADER) + format_processed(rows, header=False).encode())


def _lines_before(path: Path, timestamp: str) -> bytes:
    """The header and the whole lines before a time; nothing if the file cannot be gone on with."""
    if not path.exists():
        return b""
    content = path.read_bytes()
    if not content.startswith(HEADER) or not content.endswith(b"\n"):
        return b""
    low, high = len(HEADER), len(content)
    wanted = timestamp.encode()
    # The lines ascend in time, so half of what is left can be ruled out by one look.
    while low < high:
        middle = content.rfind(b"\n", low - 1, (low + high) // 2) + 1
        if content[middle : middle + len(wanted)] < wanted:
            low = content.index(b"\n", middle) + 1
        else:
            high = middle
    return content[:low]


def export_processed_csv(app: "App") -> dict[str, str]:
    """Bring the processed CSV of each coin up to date.

    Returns:
        The first time that was rewritten, by coin.
    """
    with app.warehouse.begin() as connection:
        work = pending_work(connection, "export")
        exported: dict[str, datetime] = {}
        for since in work.values():
            for coin, moment in since.items():
                exported[coin] = min(moment, exported.get(coin, moment))
        for coin, moment in exported.items():
            write_processed_csv(connection, app.settings.processed_path(coin), coin, moment)
        for currency, since in work.items():
            clear_work(connection, "export", currency, since)
    return {coin: format_time(moment) for coin, moment in exported.items()}
