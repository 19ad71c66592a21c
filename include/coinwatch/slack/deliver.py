"""Delivery of what is stored: each message once, and none lost.

One deliverer at a time; each message is noted as soon as Slack has taken it. Only a process that is killed between
Slack's answer and that note makes a message come twice, and then with the same ids in it.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic import BaseModel
from sqlalchemy import Connection, Engine, Row, Table, select

from coinwatch.alerts.incidents import WATCH_FEED
from coinwatch.files import locked
from coinwatch.health import issues
from coinwatch.health.troubles import end_trouble, raise_trouble
from coinwatch.rules import RuleBook
from coinwatch.settings import FAILURES_CONN_ID, SLACK_CONN_ID
from coinwatch.slack import messages, outbox, webhooks
from coinwatch.slack.charts import Point, picture, sparkline
from coinwatch.slack.messages import AlertNote, SlackMessage, TroubleNote
from coinwatch.slack.pictures import Pictures
from coinwatch.slack.webhook import KEPT, MessageRefused, SlackError, Webhook, WebhookDead, post
from coinwatch.warehouse import schema

if TYPE_CHECKING:
    from coinwatch.app import App

log = logging.getLogger(__name__)

SHORT_WAIT = 5.0
"""Seconds that are waited for Slack on the spot; for longer waits the task comes again."""

SHORT_WAITS = 3
"""How often, for one message."""

PACE = 1.0
"""Seconds from one message to the next (Slack: about one message a second for each webhook)."""

CHART_SPAN = timedelta(hours=24)

UNDELIVERED = "undelivered"
"""Key of the trouble that alerts have been waiting for too long."""


@dataclass(frozen=True, slots=True)
class Slack:
    """The channels, as far as they are configured.

    Attributes:
        alerts: For the market.
        failures: For the pipeline's own troubles; without it they go to ``alerts`` too.
        pictures: For a chart of the worst alert of a message; without it there is only the one in the text.
        sleep: Waits for so many seconds.
    """

    alerts: Webhook | None = None
    failures: Webhook | None = None
    pictures: Pictures | None = None
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class _Channel:
    """One webhook, and what goes there."""

    webhook: Webhook
    conn_id: str
    table: Table


@dataclass(frozen=True, slots=True)
class _Parcel:
    """What makes one message: rows of one table, what to note of them, and what to show of them."""

    id: str
    ids: list[str]
    message: SlackMessage
    shown: Row[Any] | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """The collaborators of a delivery.

    Attributes:
        engine: The warehouse.
        slack: Where to.
        clock: Tells the time.
        base_url: Where Airflow's pages are, for links.
        simulated: Whether the prices come from the sandbox.
        max_age: What is older comes in one summary.
        lock: File that is locked by the one who delivers.
        setting: (coin, rule) → how the rule is set, in words.
    """

    engine: Engine
    slack: Slack
    clock: Callable[[], datetime]
    base_url: str
    simulated: bool
    max_age: timedelta
    lock: Path
    setting: Callable[[str, str], str]

    def deliver(self) -> int:
        """Send everything that has not been delivered, the alerts first.

        Returns:
            Alerts of the market that were delivered.

        Raises:
            SlackError: Slack did not take something, which stays with all after it; or a webhook has just died and
                there is no other one to say so.
        """
        failure: SlackError | None = None
        with locked(self.lock):
            delivered = 0
            try:
                delivered = self._deliver_alerts()
            except SlackError as error:
                failure = error
            told = self._deliver_troubles(failure)
        if isinstance(failure, WebhookDead) and told:
            log.error("%s. The operators were told through %s", failure, FAILURES_CONN_ID)
        elif failure is not None:
            raise failure
        return delivered

    def deliver_troubles(self) -> None:
        """Send what there is to tell of the pipeline itself.

        Raises:
            SlackError: Slack did not take it.
        """
        with locked(self.lock):
            self._deliver_troubles(None)

    def _deliver_alerts(self) -> int:
        if self.slack.alerts is None:
            self._note_not_configured()
            return 0
        delivered = self._send_all(_Channel(self.slack.alerts, SLACK_CONN_ID, schema.alerts))
        with self.engine.begin() as connection:
            if not outbox.waiting(connection, schema.alerts, self.clock() - self.max_age):
                end_trouble(connection, UNDELIVERED, self.clock(), "Everything that waited has been delivered.")
        return delivered

    def _note_not_configured(self) -> None:
        with self.engine.begin() as connection:
            outbox.hold_back(connection, self.clock())
            waits = outbox.waiting(connection, schema.alerts, self.clock() - self.max_age)
            outbox.mark_not_configured(connection, schema.alerts)
        log.warning(
            "no connection %s: %d alerts are stored and wait; they are sent if the connection exists within %g hours",
            SLACK_CONN_ID,
            len(waits),
            self.max_age / timedelta(hours=1),
        )

    def _deliver_troubles(self, failure: SlackError | None) -> bool:
        """Tell the operators, by their own channel if there is one that lives.

        Args:
            failure: Why the alerts' channel did not work just now.

        Returns:
            Whether nothing is left to tell them.

        Raises:
            SlackError: No channel took it, and there was no failure before that to tell of.
        """
        for conn_id, webhook in ((FAILURES_CONN_ID, self.slack.failures), (SLACK_CONN_ID, self.slack.alerts)):
            if webhook is None or (conn_id == SLACK_CONN_ID and failure is not None) or self._is_dead(webhook):
                continue
            try:
                self._send_all(_Channel(webhook, conn_id, schema.trouble_messages))
            except WebhookDead as error:
                log.error("%s", error)
                continue
            except SlackError as error:
                if failure is None:
                    raise
                log.error("nor could the operators be told: %s", error)
                return False
            return True
        with self.engine.begin() as connection:
            for trouble in outbox.waiting(connection, schema.trouble_messages, self.clock() - self.max_age):
                log.error(
                    "trouble, which no channel can tell of: %s: %s %s", trouble.title, trouble.what, trouble.action
                )
        return False

    def _is_dead(self, webhook: Webhook) -> bool:
        with self.engine.begin() as connection:
            return webhooks.is_dead(connection, webhook.url)

    def _send_all(self, channel: _Channel) -> int:
        """Send what waits in a table.

        Returns:
            Rows that were delivered.

        Raises:
            SlackError: Slack did not take one; that and those after it stay.
        """
        table, now = channel.table, self.clock()
        with self.engine.begin() as connection:
            outbox.hold_back(connection, now)
            rows = outbox.waiting(connection, table, now - self.max_age)
            dead = webhooks.is_dead(connection, channel.webhook.url)
            wait = webhooks.seconds_to_wait(connection, channel.webhook.url, now)
            parcels = [] if dead else list(self._parcels(connection, table, rows, now))
        if dead and rows:
            log.warning(
                "%d messages wait: the webhook of the connection %s is dead. Put a new one there, or run manage_alerts "
                "with revive_webhooks once the old one works again",
                len(rows),
                channel.conn_id,
            )
        elif wait and rows:
            raise SlackError(f"Slack asked to get nothing for another {wait:.0f} s; {KEPT}", retry_after=wait)
        delivered = 0
        for number, parcel in enumerate(parcels):
            if number:
                self.slack.sleep(PACE)
            delivered += self._send(channel, parcel)
        return delivered

    def _parcels(
        self, connection: Connection, table: Table, rows: Sequence[Row[Any]], now: datetime
    ) -> Iterator[_Parcel]:
        old = [row for row in rows if row.raised_at < now - self.max_age]
        if len(old) > 1:
            yield self._summary(connection, table, old)
        # One alone is not worth a summary: it says itself when it was.
        fresh = rows if len(old) == 1 else [row for row in rows if row.raised_at >= now - self.max_age]
        if table is schema.alerts:
            for (_, run_id), group in groupby(fresh, lambda row: (row.raised_at, row.run_id)):
                together = list(group)
                notes = [self._alert_note(connection, row) for row in together]
                message = messages.alert_message(notes, self._run_url(run_id), simulated=self.simulated)
                worst = messages.worst_open(notes)
                shown = next((row for row in together if worst is not None and row.id == worst.id), None)
                yield replace(_parcel(together, message), shown=shown)
            return
        for _, group in groupby(fresh, lambda row: row.raised_at):
            together = list(group)
            troubles = [_trouble_note(row) for row in together]
            yield _parcel(together, messages.trouble_message(troubles, simulated=self.simulated))

    def _summary(self, connection: Connection, table: Table, rows: Sequence[Row[Any]]) -> _Parcel:
        hours = self.max_age / timedelta(hours=1)
        if table is schema.alerts:
            alerts = [self._alert_note(connection, row) for row in rows]
            message = messages.summary_message("alerts", alerts, hours, simulated=self.simulated)
        else:
            troubles = [_trouble_note(row) for row in rows]
            what = "messages about Coinwatch itself"
            message = messages.summary_message(what, troubles, hours, simulated=self.simulated)
        return _parcel(rows, message)

    def _alert_note(self, connection: Connection, row: Row[Any]) -> AlertNote:
        return AlertNote(
            id=row.id,
            coin=row.coin,
            rule=row.rule,
            state=row.state,
            severity=row.severity,
            message=row.message,
            ts=row.ts,
            value=row.value,
            threshold=row.threshold,
            facts=messages.rule_facts(row.rule, row.threshold, self.setting(row.coin, row.rule)),
            chart=_chart(connection, row),
        )

    def _run_url(self, run_id: str) -> str:
        dags = f"{self.base_url.rstrip('/')}/dags"
        return (
            f"{dags}/{WATCH_FEED}" if run_id == WATCH_FEED else f"{dags}/process_prices/runs/{quote(run_id, safe='')}"
        )

    def _send(self, channel: _Channel, parcel: _Parcel) -> int:
        try:
            self._post(channel, parcel.message)
        except MessageRefused as error:
            return self._send_as_text(channel, parcel, error)
        except SlackError as error:
            with self.engine.begin() as connection:
                outbox.mark_failed(connection, channel.table, parcel.ids, str(error))
                if isinstance(error, WebhookDead):
                    self._note_dead(connection, channel, error)
                elif error.retry_after is not None:
                    until = self.clock() + timedelta(seconds=error.retry_after)
                    webhooks.mark_paused(connection, channel.webhook.url, channel.conn_id, str(error), until)
            raise
        return self._note_delivered(channel, parcel)

    def _send_as_text(self, channel: _Channel, parcel: _Parcel, refused: MessageRefused) -> int:
        """Send what Slack does not understand once more without blocks; it must not keep back what comes after it."""
        log.error("%s; it is sent as plain text", refused)
        try:
            self._post(channel, SlackMessage(parcel.message.text, []))
        except MessageRefused as error:
            with self.engine.begin() as connection:
                outbox.mark_refused(connection, channel.table, parcel.ids, str(error))
            log.error("message %s: %s", parcel.id, error)
            return 0
        return self._note_delivered(channel, parcel)

    def _post(self, channel: _Channel, message: SlackMessage) -> None:
        """Post, and wait on the spot if Slack asks for a moment only."""
        for _ in range(SHORT_WAITS):
            try:
                return post(channel.webhook, message, channel.conn_id)
            except SlackError as error:
                if error.retry_after is None or error.retry_after > SHORT_WAIT:
                    raise
                log.info("Slack asks to wait for %g s", error.retry_after)
                self.slack.sleep(error.retry_after)
        return post(channel.webhook, message, channel.conn_id)

    def _note_delivered(self, channel: _Channel, parcel: _Parcel) -> int:
        now = self.clock()
        with self.engine.begin() as connection:
            outbox.mark_delivered(connection, channel.table, parcel.ids, parcel.id, now)
            webhooks.mark_well(connection, channel.webhook.url)
            end_trouble(connection, _dead_key(channel.conn_id), now, "The connection works again.")
        log.info("delivered to %s: %s", channel.conn_id, ", ".join(parcel.ids))
        # After the note, so that it is never the reason for a second message.
        if parcel.shown is not None:
            self._show(parcel.shown)
        return len(parcel.ids)

    def _show(self, row: Row[Any]) -> None:
        if self.slack.pictures is None:
            return
        with self.engine.begin() as connection:
            content = picture(_points(connection, row), row.ts - CHART_SPAN, row.ts)
        if content:
            mark = "[SIMULATED] " if self.simulated else ""
            self.slack.pictures.show(content, f"{mark}{row.coin}, 24 hours to {messages.told_time(row.ts)}")

    def _note_dead(self, connection: Connection, channel: _Channel, error: WebhookDead) -> None:
        now = self.clock()
        webhooks.mark_dead(connection, channel.webhook.url, channel.conn_id, str(error), now)
        raise_trouble(
            connection,
            _dead_key(channel.conn_id),
            title=f"Slack refuses the webhook of {channel.conn_id}",
            what=f"{error}.",
            action=f"Make a new webhook in Slack and put it into the connection {channel.conn_id}. If the old one "
            "works again, run manage_alerts with the action revive_webhooks.",
            at=now,
        )


def delivery(app: "App") -> Delivery:
    """Return a delivery as the settings and rules want it."""
    return Delivery(
        engine=app.warehouse,
        slack=app.slack,
        clock=app.clock,
        base_url=app.airflow_url,
        simulated=app.simulated,
        max_age=timedelta(hours=app.settings.alert_max_age_hours),
        lock=app.settings.data_dir / "delivery",
        setting=lambda coin, rule: _setting(app.rules, coin, rule),
    )


def send_slack_alerts(app: "App") -> int:
    """Deliver what Slack does not have yet.

    Returns:
        Alerts that were delivered.
    """
    try:
        return delivery(app).deliver()
    finally:
        send_issues(app)


def send_issues(app: "App") -> bool:
    """Send the pipeline issues that are due, and return whether operators are notified of all of them."""
    with app.warehouse.begin() as connection:
        due = issues.due(connection, app.clock())
    if not due:
        return True
    states = {"resolved": "over"}
    notes = [
        TroubleNote(
            id=row.key,
            state=states.get(row.state, "reminder" if row.notified_at else "begun"),
            title=row.title,
            what=row.detail,
            action=row.action,
            link=row.link,
            since=row.opened_at,
            raised_at=app.clock(),
        )
        for row in due
    ]
    try:
        if not _post_notes(app, notes):
            return False
    except SlackError as error:
        log.error("pipeline issues not sent: %s", error)
        return False
    with app.warehouse.begin() as connection:
        issues.mark_notified(connection, due, app.clock())
    return True


def post_issue(app: "App", *, title: str, detail: str, action: str, link: str | None) -> bool:
    """Post an issue without the warehouse.

    Returns:
        Whether Slack accepted it.
    """
    now = app.clock()
    note = TroubleNote(title, "begun", title, detail, action, link, now, now)
    try:
        return _post_notes(app, [note])
    except SlackError as error:
        log.error("%s: %s", title, error)
        return False


def _post_notes(app: "App", notes: Sequence[TroubleNote]) -> bool:
    message = messages.trouble_message(notes, simulated=app.simulated)
    if app.slack.failures is not None:
        post(app.slack.failures, message, FAILURES_CONN_ID)
    elif app.slack.alerts is not None:
        post(app.slack.alerts, message, SLACK_CONN_ID)
    else:
        return False
    return True


def _setting(rules: RuleBook, coin: str, rule: str) -> str:
    """How a rule is set for a coin: the values that decide, which stand first, by their names in the rules file."""
    values = getattr(rules.for_coin(coin), rule, None)
    if not isinstance(values, BaseModel):
        return ""
    numbers = [f"{name} {value:g}" for name, value in values if type(value) in {int, float}]
    return ", ".join(numbers[:2])


def _dead_key(conn_id: str) -> str:
    return f"webhook:{conn_id}"


def _parcel(rows: Sequence[Row[Any]], message: SlackMessage) -> _Parcel:
    others = f"+{len(rows) - 1}" if len(rows) > 1 else ""
    return _Parcel(f"{rows[0].id}{others}", [row.id for row in rows], message)


def _trouble_note(row: Row[Any]) -> TroubleNote:
    names = ("id", "state", "title", "what", "action", "link", "since", "raised_at")
    return TroubleNote(**{name: getattr(row, name) for name in names})


def _chart(connection: Connection, row: Row[Any]) -> str:
    """The day before an alert as text, with its lowest and highest price."""
    points = _points(connection, row)
    line = sparkline(points, row.ts - CHART_SPAN, row.ts)
    if not line:
        return ""
    low, high = (messages.format_price(pick(price for _, price in points), row.currency) for pick in (min, max))
    return f"{line} 24 h, {low} to {high}"


def _points(connection: Connection, row: Row[Any]) -> list[Point]:
    p = schema.prices.c
    start = row.ts - CHART_SPAN
    query = select(p.ts, p.price).where(p.coin == row.coin, p.currency == row.currency, p.ts > start, p.ts <= row.ts)
    return [(ts, float(price)) for ts, price in connection.execute(query.order_by(p.ts))]
