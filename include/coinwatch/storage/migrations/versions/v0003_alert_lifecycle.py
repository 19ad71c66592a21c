"""The alerts' lifecycle, silences, and the pipeline's own troubles."""

import sqlalchemy as sa
from alembic import op

from coinwatch.storage.schema import UtcTime

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add what an alert belongs to, and the tables around it."""
    with op.batch_alter_table("alerts") as alerts:
        alerts.add_column(
            sa.Column(
                "incident_id",
                sa.Text(),
                nullable=True,
                comment="the incident that it is a turn of; null before there were incidents",
            )
        )
        alerts.add_column(
            sa.Column(
                "message_id",
                sa.Text(),
                nullable=True,
                comment="the Slack message that carried it, alone or with others",
            )
        )
        # Not every rule is about a move.
        alerts.alter_column("value", existing_type=sa.Double(), nullable=True)
        alerts.alter_column("threshold", existing_type=sa.Double(), nullable=True)
    if op.get_context().dialect.name == "postgresql":
        _comment("alerts", "id", "made of rule, coin, currency, state and ts", nullable=False)
        _comment("alerts", "state", "what became of the incident: firing, worse, resolved or corrected", nullable=False)
        _comment("alerts", "delivery", "pending, not_configured, delivered, silenced, held or refused", nullable=False)
        _comment("alerts", "rule", "move_1h, move_24h, or another one of the rules file", nullable=False)
        _comment("alerts", "delivery_error", "why it was not delivered; null if it was", nullable=True)
        for column, comment in (
            ("value", "the move in percent; null where it is about none"),
            ("threshold", "the move that the rule allows, in percent; null where there is none"),
        ):
            op.alter_column("alerts", column, comment=comment, existing_type=sa.Double(), existing_nullable=True)
    op.create_table(
        "incidents",
        sa.Column("coin", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False, comment="the incident_id of its alerts"),
        sa.Column(
            "state",
            sa.Text(),
            nullable=False,
            comment="firing, worse, resolved or corrected; the first two are open",
        ),
        sa.Column("opened_at", UtcTime(), nullable=False, comment="time of the price that opened it"),
        sa.Column("changed_at", UtcTime(), nullable=False, comment="time of the price that changed its state"),
        sa.Column("told_at", UtcTime(), nullable=False, comment="time of the price of its newest firing or worse"),
        sa.Column(
            "told", sa.Double(), nullable=False, comment="log return that was told then; 0 where it is about no move"
        ),
        sa.Column(
            "reference_price",
            sa.Double(),
            nullable=True,
            comment="price that it moved away from; null where it is about no move",
        ),
        sa.PrimaryKeyConstraint("coin", "currency", "rule"),
        comment="The newest incident of each coin and rule, open or over",
    )
    op.create_table(
        "silences",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("coin", sa.Text(), nullable=False, comment="a CoinGecko id, or * for all"),
        sa.Column("rule", sa.Text(), nullable=False, comment="a rule, * for all of them, or the key of a trouble"),
        sa.Column("until", UtcTime(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        comment="Alerts about these are stored and not sent, until then",
    )
    op.create_table(
        "acknowledgements",
        sa.Column("subject", sa.Text(), nullable=False, comment="id of the incident or of the trouble"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("acknowledged_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("subject"),
        comment="Somebody has taken care: no more messages until it is over",
    )
    op.create_table(
        "troubles",
        sa.Column("key", sa.Text(), nullable=False, comment="names the trouble: the same one, the same key"),
        sa.Column("id", sa.Text(), nullable=False, comment="key and since: this time that it came up"),
        sa.Column("state", sa.Text(), nullable=False, comment="noticed (not for long enough yet), open or over"),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False, comment="what happened, as it was last seen"),
        sa.Column("action", sa.Text(), nullable=False, comment="what to do"),
        sa.Column("link", sa.Text(), nullable=True, comment="the page to look at"),
        sa.Column("since", UtcTime(), nullable=False),
        sa.Column("last_seen", UtcTime(), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False, comment="how often it was seen since then"),
        sa.Column(
            "told_at", UtcTime(), nullable=True, comment="when the last message about it was stored; null without any"
        ),
        sa.Column("over_at", UtcTime(), nullable=True, comment="null until it is over"),
        sa.PrimaryKeyConstraint("key"),
        comment="The pipeline's own troubles, as they stand today",
    )
    op.create_table(
        "trouble_messages",
        sa.Column("id", sa.Text(), nullable=False, comment="made of the trouble's id and the state"),
        sa.Column("trouble_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False, comment="of the trouble"),
        sa.Column("state", sa.Text(), nullable=False, comment="begun, reminder or over"),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("link", sa.Text(), nullable=True),
        sa.Column("since", UtcTime(), nullable=False),
        sa.Column("raised_at", UtcTime(), nullable=False),
        sa.Column("delivered_at", UtcTime(), nullable=True, comment="null until Slack has taken it"),
        sa.Column(
            "delivery", sa.Text(), nullable=False, comment="as in alerts; superseded: the one after it tells it too"
        ),
        sa.Column("delivery_error", sa.Text(), nullable=True, comment="why it was not delivered; null if it was"),
        sa.Column(
            "message_id", sa.Text(), nullable=True, comment="the Slack message that carried it, alone or with others"
        ),
        sa.PrimaryKeyConstraint("id"),
        comment="What is told of troubles: stored first, delivered after, like the alerts",
    )
    op.create_index("trouble_messages_delivery", "trouble_messages", ["delivery"], unique=False)
    op.create_index("trouble_messages_trouble", "trouble_messages", ["trouble_id"], unique=False)
    op.create_table(
        "webhooks",
        sa.Column(
            "fingerprint",
            sa.Text(),
            nullable=False,
            comment="part of the SHA-256 of the webhook, which is a secret",
        ),
        sa.Column("connection", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False, comment="what Slack answered"),
        sa.Column(
            "dead_since", UtcTime(), nullable=True, comment="from when on nothing is posted to it; null while it lives"
        ),
        sa.Column("not_before", UtcTime(), nullable=True, comment="until when Slack asked to wait; null if it did not"),
        sa.PrimaryKeyConstraint("fingerprint"),
        comment="Webhooks that have to be left alone, for good or for a while",
    )


def _comment(table: str, column: str, comment: str, *, nullable: bool) -> None:
    op.alter_column(table, column, comment=comment, existing_type=sa.Text(), existing_nullable=nullable)
