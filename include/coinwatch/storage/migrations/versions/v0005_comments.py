"""Every table and column says what it holds; the words stand in schema.py, and come with each migration."""

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Nothing but to have migrated: see ``write_comments``."""
