"""Keys, and a number that grows with every change to them."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "keys",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("tenant", sa.String, nullable=False, index=True),
        sa.Column("tier", sa.String, nullable=False),
        sa.Column("models", sa.JSON),
        sa.Column("hint", sa.String, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("expires", sa.Float),
    )
    revisions = op.create_table(
        "revisions",
        sa.Column("subject", sa.String, primary_key=True),
        sa.Column("number", sa.Integer, nullable=False),
    )
    op.bulk_insert(revisions, [{"subject": "keys", "number": 0}])
