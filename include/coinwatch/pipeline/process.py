"""The steps of `process_prices`: from the raw log to statistics, alerts, the processed CSV and S3.

Each step finds its work in the warehouse, where the step before left it in the same transaction as its results. So
events may be merged or missed, and any step may be killed and repeated: nothing is lost, and nothing is done twice.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine

from coinwatch.records import parse_raw_prices
from coinwatch.rules import RuleBook
from coinwatch.settings import Settings
from coinwatch.storage.log_reader import forget_position, read_new_lines
from coinwatch.storage.prices import clear_work, pending_work, store_raw_prices
from coinwatch.storage.raw_log import RawLogError, strip_header
from coinwatch.times import format_time

if TYPE_CHECKING:
    import pandas as pd

    from coinwatch.alerting.delivery import Slack
    from coinwatch.storage.s3 import S3Store

log = logging.getLogger(__name__)

STATISTICS_CONTEXT = timedelta(hours=30)
"""How far the windows of a row reach back: 24 hours and an hour of tolerance, and the hour before a spike."""

NO_BUCKET = "COINWATCH_S3_BUCKET is empty: nothing is uploaded; what waits is uploaded once it is set"

DETECTION_CONTEXT = timedelta(hours=30)
"""How far an observation reaches back: a day and an hour of tolerance, and the move of the price before it."""


@dataclass(frozen=True, slots=True)
class Process:
    """The collaborators of the steps.

    Attributes:
        settings: What the environment decides.
        warehouse: Where everything is stored.
        rules: The rules and windows.
        clock: Tells the time.
    """

    settings: Settings
    warehouse: Engine
    rules: RuleBook
    clock: Callable[[], datetime]

    def load_raw_prices(self) -> dict[str, int]:
        """Take what is new in the raw logs into the warehouse.

        Returns:
            Rows that were new, by coin.

        Raises:
            RawLogError: A raw log has lines that are none of ours.
        """
        return {coin: self._load(coin) for coin in self.settings.coins}

    def _load(self, coin: str) -> int:
        path = self.settings.raw_path(coin)
        with self.warehouse.begin() as connection:
            new = read_new_lines(connection, f"raw:{coin}", path)
            if new.restarted:
                log.warning("%s; it is read again from its beginning, which doubles nothing", new.restarted)
            lines = strip_header(path, new.lines) if new.start == 0 else new.lines
            try:
                rows = list(parse_raw_prices(lines.decode()))
            except ValueError as error:
                raise RawLogError(
                    f"{path} has lines after byte {new.start} that are none of ours: {error}. Take them out; nothing "
                    "of them was stored"
                ) from None
            stored = store_raw_prices(connection, rows, self.rules, self.clock())
            new.commit(connection)
        log.info("%s: %d rows read from byte %d on, %d of them new", path, len(rows), new.start, len(stored))
        return len(stored)

    def compute_rolling_statistics(self) -> dict[str, int]:
        """Compute the statistics of new rows, and again those of every row after them.

        Returns:
            Rows that were computed, by coin.
        """
        computed: dict[str, int] = {}
        with self.warehouse.begin() as connection:
            for currency, since in pending_work(connection, "statistics").items():
                computed |= self._compute(connection, currency, since)
                clear_work(connection, "statistics", currency, since)
        log.info("rows computed: %s", computed)
        return computed

    def _compute(self, connection: Connection, currency: str, since: dict[str, datetime]) -> dict[str, int]:
        from coinwatch.analysis.statistics import compute_statistics
        from coinwatch.storage.statistics import read_history, store_statistics

        history = read_history(connection, currency, since, STATISTICS_CONTEXT)
        statistics = compute_statistics(history, since, self.rules)
        store_statistics(connection, currency, statistics, history)
        return {str(coin): int(rows) for coin, rows in statistics["coin"].value_counts().items()}

    def detect_anomalies(self, run_id: str) -> list[str]:
        """Decide on new live prices and on what is held back, and store an alert for whatever has changed.

        Args:
            run_id: Run of `process_prices` that the alerts name.

        Returns:
            The messages of the alerts that are new.
        """
        from coinwatch.alerting.incidents import read_memory, see_quarantine, store_transitions
        from coinwatch.analysis.incidents import decide_all
        from coinwatch.analysis.observations import observe
        from coinwatch.storage.statistics import read_history

        now = self.clock()
        raised = []
        with self.warehouse.begin() as connection:
            for currency, since in pending_work(connection, "detection").items():
                memory = read_memory(connection, currency)
                history = read_history(connection, currency, since, DETECTION_CONTEXT)
                for coin, seen in observe(history, currency, since, self.rules):
                    transitions = decide_all(memory.get(coin, {}), seen, self.rules.for_coin(coin))
                    raised += store_transitions(connection, transitions, self.rules, at=now, run_id=run_id)
                self._tell_who_learns(history)
                clear_work(connection, "detection", currency, since)
            held = see_quarantine(connection, self.settings.currency, now)
            raised += store_transitions(connection, held, self.rules, at=now, run_id=run_id)
        for alert in raised:
            log.warning("alert %s: %s", alert.id, alert.message)
        return [alert.message for alert in raised]

    def _tell_who_learns(self, history: "pd.DataFrame") -> None:
        for coin, samples in history.groupby("coin")["sigma_samples"].last().fillna(0).items():
            enough = self.rules.for_coin(str(coin)).warm_up_samples
            if samples < enough:
                log.info("%s: learning, %d of %d", coin, samples, enough)

    def export_processed_csv(self) -> dict[str, str]:
        """Bring the processed CSV of each coin up to date.

        Returns:
            The first time that was written anew, by coin.
        """
        from coinwatch.storage.processed_csv import write_processed_csv

        with self.warehouse.begin() as connection:
            work = pending_work(connection, "export")
            exported: dict[str, datetime] = {}
            for since in work.values():
                for coin, moment in since.items():
                    exported[coin] = min(moment, exported.get(coin, moment))
            for coin, moment in exported.items():
                write_processed_csv(connection, self.settings.processed_path(coin), coin, moment)
            for currency, since in work.items():
                clear_work(connection, "export", currency, since)
        return {coin: format_time(moment) for coin, moment in exported.items()}

    def send_slack_alerts(self, slack: "Slack", base_url: str, *, simulated: bool) -> int:
        """Deliver what Slack has not got yet.

        Args:
            slack: The channels, as far as they are configured.
            base_url: Where Airflow's pages are, for links.
            simulated: Whether the prices come from the sandbox.

        Returns:
            Alerts that were delivered.
        """
        from coinwatch.alerting.delivery import delivery

        return delivery(
            self.settings, self.warehouse, self.rules, self.clock, slack, base_url, simulated=simulated
        ).deliver()

    def upload_to_s3(self, store: "S3Store | None") -> dict[str, int]:
        """Upload the partitions that have changed and the snapshots that are new.

        Args:
            store: None if no bucket is configured.

        Returns:
            Objects uploaded, by layer.
        """
        from coinwatch.storage.uploads import upload_archive, upload_partitions

        if store is None:
            log.warning(NO_BUCKET)
            return {}
        uploaded = dict(upload_partitions(self.warehouse, store, self.clock()))
        manifest = self.settings.archive_path / "manifest.jsonl"
        with self.warehouse.begin() as connection:
            new = read_new_lines(connection, _manifest_log(store), manifest)
        if new.restarted:
            log.warning("%s; it is read again, and S3 gets only what it does not have", new.restarted)
        names = [json.loads(line)["name"] for line in new.lines.splitlines()]
        uploaded["archive"] = upload_archive(self.warehouse, store, self.settings.archive_path, names, self.clock())
        with self.warehouse.begin() as connection:
            new.commit(connection)
        log.info("objects uploaded to s3://%s: %s", store.bucket, uploaded)
        return uploaded

    def upload_missing(self, store: "S3Store | None") -> dict[str, int]:
        """Upload every partition and snapshot that S3 does not have, whether it has changed or not.

        Args:
            store: None if no bucket is configured.

        Returns:
            Objects uploaded, by layer.
        """
        from coinwatch.storage.uploads import list_all_partitions

        with self.warehouse.begin() as connection:
            list_all_partitions(connection)
            if store is not None:
                forget_position(connection, _manifest_log(store))
        return self.upload_to_s3(store)

    def upload_latest(self, store: "S3Store | None") -> list[str]:
        """Upload the whole processed CSV of each coin.

        Args:
            store: None if no bucket is configured.

        Returns:
            The coins.
        """
        from coinwatch.storage.uploads import upload_latest

        if store is None:
            log.warning(NO_BUCKET)
            return []
        for coin in self.settings.coins:
            upload_latest(store, coin, self.settings.processed_path(coin))
        return list(self.settings.coins)


def _manifest_log(store: "S3Store") -> str:
    """Name of the manifest's position: each bucket, or prefix in it, is filled on its own."""
    return f"manifest:{store.full_key(store.bucket)}"
