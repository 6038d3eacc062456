"""Operators' orders to upstreams."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "orders",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("upstream", sa.String, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("given", sa.Float, nullable=False),
    )
