"""The ledger of gaps: hours that a raw log does not have, what was tried, and when it is worth another request.

What happens to each hour is decided purely, hour by hour; the table has a row for each run of hours with the same fate.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Literal

from sqlalchemy import Connection, delete, select

from coinwatch.times import HOUR, format_time
from coinwatch.warehouse import schema
from coinwatch.warehouse.engine import lock_table, upsert

GapState = Literal["open", "healed", "no_data", "beyond_plan"]

Refusal = Literal["no_data", "beyond_plan"]

SETTLED = timedelta(hours=2)
"""After this long the history has an hour if it ever will: CoinGecko caches it for half an hour."""

FIRST_PAUSE = timedelta(hours=6)
"""Before an hour that could not be had is asked for again; twice as long after each further try."""

DOUBLINGS_MAX = 7
"""After this many doublings (32 days) the pause grows no more."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What is known of a missing hour.

    Attributes:
        found_at: When it was first seen to be missing.
        state: What became of it.
        tries: Answered requests that asked for it.
        tried_at: Time of the newest of them.
        next_try_at: Not asked for again before; none if the next run asks.
        healed_at: When the raw log was seen to have it.
        snapshot: Archived answer of the newest try; empty if there was none.
        reason: Why it could not be had; empty unless so.
    """

    found_at: datetime
    state: GapState = "open"
    tries: int = 0
    tried_at: datetime | None = None
    next_try_at: datetime | None = None
    healed_at: datetime | None = None
    snapshot: str = ""
    reason: str = ""

    def is_due(self, now: datetime) -> bool:
        """Whether the next request should ask for it."""
        return self.next_try_at is None or self.next_try_at <= now

    def healed(self, now: datetime) -> "Fate":
        """The raw log has it."""
        return replace(self, state="healed", healed_at=now, next_try_at=None, reason="")

    def lacking(self, hour: datetime, now: datetime, snapshot: str) -> "Fate":
        """An answer did not have it; if it is too young for that to mean anything, the next run asks again."""
        if now - hour >= SETTLED:
            return self.refused(now, "no_data", "CoinGecko's history has no price within 30 minutes of it", snapshot)
        return self.answered(now, snapshot)

    def refused(self, now: datetime, state: Refusal, reason: str, snapshot: str) -> "Fate":
        """It cannot be had, and is asked for again after a pause; the same answer told twice is one try."""
        if snapshot == self.snapshot:
            return self
        return replace(
            self,
            state=state,
            tries=self.tries + 1,
            tried_at=now,
            next_try_at=now + FIRST_PAUSE * 2 ** min(self.tries, DOUBLINGS_MAX),
            snapshot=snapshot,
            reason=reason,
        )

    def answered(self, now: datetime, snapshot: str) -> "Fate":
        """It was asked for and stays open; it is healed when the raw log has it."""
        if snapshot == self.snapshot:
            return self
        tries = self.tries + 1
        return replace(self, state="open", tries=tries, tried_at=now, next_try_at=None, snapshot=snapshot, reason="")


class GapLedger:
    """The hours of the ledger that are not healed, in one transaction that nobody else can change them in.

    Attributes:
        currency: Quote currency.
    """

    def __init__(self, connection: Connection, currency: str) -> None:
        lock_table(connection, schema.gaps)
        self.currency = currency
        self._connection = connection
        table = schema.gaps.c
        self._fates: dict[str, dict[datetime, Fate]] = {}
        query = select(schema.gaps).where(table.currency == currency, table.state != "healed")
        for row in connection.execute(query):
            fate = Fate(**{name: getattr(row, name) for name in Fate.__dataclass_fields__})
            hours = self._fates.setdefault(row.coin, {})
            hours.update(dict.fromkeys(hours_between(row.first_hour, row.last_hour), fate))

    def see_missing(
        self, coin: str, missing: Iterable[datetime], start: datetime, end: datetime, now: datetime
    ) -> dict[datetime, Fate]:
        """Bring the ledger up to what a raw log misses.

        Args:
            coin: CoinGecko id.
            missing: Every full hour from ``start`` on and before ``end`` that its raw log does not have.
            start: Beginning of the span that was looked at; open hours before it are given up.
            end: End of that span.
            now: The present.

        Returns:
            The fate of each missing hour.
        """
        known = self._fates.get(coin, {})
        fates: dict[datetime, Fate] = {}
        for hour in sorted(missing):
            fates[hour] = _fate_after(fates.get(hour - HOUR), known.get(hour), now)
        changes = dict(fates)
        for hour, fate in known.items():
            if start <= hour < end and hour not in fates:
                changes[hour] = fate.healed(now)
            elif hour < start and fate.state == "open":
                reason = "COINWATCH_HISTORY_DAYS does not reach back to it any more"
                changes[hour] = replace(fate, state="no_data", reason=reason)
        self.change(coin, changes)
        return fates

    def fates(self, coin: str, hours: Iterable[datetime], now: datetime) -> dict[datetime, Fate]:
        """The fates of some missing hours; of those that nobody has noted yet, a new one."""
        known = self._fates.get(coin, {})
        return {hour: known.get(hour, Fate(found_at=now)) for hour in hours}

    def heal(self, coin: str, stored: Collection[str], now: datetime) -> None:
        """Note the hours that a raw log has by now, of its timestamps."""
        known = self._fates.get(coin, {})
        self.change(coin, {hour: fate.healed(now) for hour, fate in known.items() if format_time(hour) in stored})

    def change(self, coin: str, changes: Mapping[datetime, Fate]) -> None:
        """Store the fates of some hours."""
        before = self._fates.get(coin, {})
        after = {**before, **changes}
        if after == before:
            return
        table = schema.gaps.c
        unhealed = (table.coin == coin, table.currency == self.currency, table.state != "healed")
        self._connection.execute(delete(schema.gaps).where(*unhealed))
        rows = [
            {"coin": coin, "currency": self.currency, "first_hour": first, "last_hour": last, **asdict(fate)}
            for first, last, fate in collapse(after)
        ]
        upsert(self._connection, schema.gaps, rows)
        self._fates[coin] = {hour: fate for hour, fate in after.items() if fate.state != "healed"}


def _fate_after(before: Fate | None, own: Fate | None, now: datetime) -> Fate:
    """The fate of a missing hour, by that of the hour before it if that is missing too: gaps grow."""
    if before is not None:
        if own is None and before.state == "open" and not before.tries:
            return before
        # Else a coin without any price would cost a request every hour.
        if before.state == "no_data" and not before.is_due(now) and (own is None or own.is_due(now)):
            return before
    return own or Fate(found_at=now)


def collapse(fates: Mapping[datetime, Fate]) -> list[tuple[datetime, datetime, Fate]]:
    """Runs of hours that follow each other and have the same fate: (first, last, fate), in the order of time."""
    hours = sorted(fates)
    breaks = [
        number
        for number, (before, hour) in enumerate(pairwise(hours), start=1)
        if hour - before != HOUR or fates[hour] != fates[before]
    ]
    edges = [0, *breaks, len(hours)]
    return [(hours[i], hours[j - 1], fates[hours[i]]) for i, j in pairwise(edges) if j > i]


def hours_between(first: datetime, last: datetime) -> Sequence[datetime]:
    """The full hours of a gap, both ends included."""
    return [first + HOUR * number for number in range((last - first) // HOUR + 1)]
