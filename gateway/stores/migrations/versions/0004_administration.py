"""Tiers and tenants that are administered, the audit of who changed what, and keys that rotate."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the tables, and give keys limits of their own and a secret that is on its way out."""
    op.add_column("keys", sa.Column("limits", sa.JSON(none_as_null=True)))
    op.add_column("keys", sa.Column("old_digest", sa.String(64)))
    op.add_column("keys", sa.Column("old_until", sa.Float))
    op.create_index("ix_keys_created", "keys", ["created", "id"])
    for table in ("tiers", "tenants"):
        op.create_table(
            table,
            sa.Column("name", sa.String, primary_key=True),
            sa.Column("definition", sa.JSON, nullable=False),
            sa.Column("version", sa.Integer, nullable=False),
            sa.Column("changed", sa.Float, nullable=False),
        )
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("actor_id", sa.String, nullable=False),
        sa.Column("actor", sa.String, nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("request_id", sa.String, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("subject", sa.String, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("before", sa.JSON(none_as_null=True)),
        sa.Column("after", sa.JSON(none_as_null=True)),
        sa.Index("ix_audit_subject", "subject", "name", "number"),
    )
    revisions = sa.table("revisions", sa.column("subject", sa.String), sa.column("number", sa.Integer))
    op.bulk_insert(
        revisions, [{"subject": subject, "number": 0} for subject in ("orders", "tiers", "tenants")]
    )
