"""The usage ledger: a row for each finished request, and their sums by day."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "ledger",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("request", sa.String, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("requests", sa.Integer, nullable=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("tier", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("upstream", sa.String, nullable=False),
        sa.Column("served_model", sa.String, nullable=False),
        sa.Column("operation", sa.String, nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("stream", sa.Boolean, nullable=False),
        sa.Column("cache_hit", sa.Boolean, nullable=False),
        sa.Column("input", sa.BigInteger, nullable=False),
        sa.Column("output", sa.BigInteger, nullable=False),
        sa.Column("cached_input", sa.BigInteger, nullable=False),
        sa.Column("reasoning", sa.BigInteger, nullable=False),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("cost", sa.BigInteger),
        sa.Column("duration", sa.Float, nullable=False),
        sa.Column("first_token", sa.Float),
        sa.Index("ix_ledger_at", "at", "id"),
        sa.Index("ix_ledger_tenant_at", "tenant", "at"),
        sa.Index("ix_ledger_request", "request"),
    )
    op.create_table(
        "ledger_days",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("tenant", sa.String, nullable=False),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("tier", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("upstream", sa.String, nullable=False),
        sa.Column("served_model", sa.String, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("refused", sa.BigInteger, nullable=False),
        sa.Column("failed", sa.BigInteger, nullable=False),
        sa.Column("cancelled", sa.BigInteger, nullable=False),
        sa.Column("cache_hits", sa.BigInteger, nullable=False),
        sa.Column("estimated", sa.BigInteger, nullable=False),
        sa.Column("unpriced", sa.BigInteger, nullable=False),
        sa.Column("input", sa.BigInteger, nullable=False),
        sa.Column("output", sa.BigInteger, nullable=False),
        sa.Column("cached_input", sa.BigInteger, nullable=False),
        sa.Column("reasoning", sa.BigInteger, nullable=False),
        sa.Column("cost", sa.BigInteger, nullable=False),
        sa.Index("ix_ledger_days_day", "day"),
        sa.Index("ix_ledger_days_tenant_day", "tenant", "day"),
    )
