"""What `watch_feed` looks at besides the pipeline: what CoinGecko gives, what it costs, and what is held back."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from coinwatch.alerting.incidents import see_quarantine, store_transitions
from coinwatch.alerting.messages import told_time
from coinwatch.alerting.troubles import end_trouble, open_troubles, raise_trouble
from coinwatch.rules import RuleBook
from coinwatch.settings import Settings
from coinwatch.sources.coingecko import COINS_PER_REQUEST
from coinwatch.storage import schema
from coinwatch.storage.requests import read_budget

RUN_ID = "watch_feed"

WAITS = {"no_price": timedelta(hours=2), "not_understood": timedelta(0), "unknown_id": timedelta(0)}
"""Conditions that somebody should hear of, and how long they may last before; the others have alerts of their own."""


@dataclass(frozen=True, slots=True)
class Feed:
    """The checks.

    Attributes:
        settings: What the environment decides.
        rules: The rules, for the names of coins.
        monthly_limit: Requests that the plan allows in a month; none if that is not known.
    """

    settings: Settings
    rules: RuleBook
    monthly_limit: int | None

    def check_budget(self, connection: Connection, now: datetime) -> None:
        """Whether the month's requests will do."""
        pages = -(-len(self.settings.coins) // COINS_PER_REQUEST)
        budget = read_budget(connection, now, pages, self.monthly_limit)
        if not budget.is_short:
            end_trouble(connection, "budget", now, f"{budget}.")
            return
        raise_trouble(
            connection,
            "budget",
            title="Requests to CoinGecko run short",
            what=f"{budget}.",
            action="Watch fewer coins, pull less often by hand, or take a larger plan (then set "
            "COINWATCH_COINGECKO_MONTHLY_LIMIT). When they are used up, CoinGecko refuses until the month is over.",
            at=now,
        )

    def check_conditions(self, connection: Connection, now: datetime) -> None:
        """Whether CoinGecko still gives a price of every coin."""
        c = schema.feed_conditions.c
        query = select(schema.feed_conditions).where(c.currency == self.settings.currency, c.ended_at.is_(None))
        open_now = {
            f"feed:{row.condition}:{row.coin}": row
            for row in connection.execute(query)
            if row.coin in self.settings.coins and row.condition in WAITS
        }
        lost = [row.coin for row in open_now.values() if row.condition == "unknown_id"]
        left = ", ".join(coin for coin in self.settings.coins if coin not in lost) or "none"
        for key, row in open_now.items():
            unknown = row.condition == "unknown_id"
            raise_trouble(
                connection,
                key,
                title=f"CoinGecko {'does not know' if unknown else 'gives no price of'} {row.coin}",
                what=f"{row.coin}, since {told_time(row.since)}: {row.reason}."
                + (f" Ids that are left: {left}." if unknown else ""),
                action="Look the coin up on coingecko.com: it was renamed or delisted, or its answer has changed. Then "
                "correct COINWATCH_COINS. The other coins go on.",
                at=now,
                lasting=WAITS[row.condition],
            )
        for trouble in open_troubles(connection):
            if trouble.key.startswith("feed:") and trouble.key not in open_now:
                end_trouble(
                    connection, trouble.key, now, "The newest answers have it again, or it is not watched any more."
                )

    def check_quarantine(self, connection: Connection, now: datetime) -> None:
        """Tell of values that were held back although no price came that would have started `process_prices`."""
        transitions = see_quarantine(connection, self.settings.currency, now)
        store_transitions(connection, transitions, self.rules, at=now, run_id=RUN_ID)

    @property
    def checks(self) -> tuple[Callable[[Connection, datetime], None], ...]:
        """All of them, for ``Watch.more_checks``."""
        return (self.check_budget, self.check_conditions, self.check_quarantine)
