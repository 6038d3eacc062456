"""What requests took of energy, in the ledger and its daily sums. Nobody knows it of the rows that are there.

A process of the release before, still writing while this one starts, leaves the columns to their defaults.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns; a row's energy that isn't known is null."""
    op.add_column("ledger", sa.Column("energy", sa.BigInteger))
    op.add_column("ledger", sa.Column("measured", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("ledger", sa.Column("energy_wasted", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("ledger", sa.Column("flops", sa.Float))
    for name in ("energy", "energy_measured", "energy_wasted"):
        op.add_column("ledger_days", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("ledger_days", sa.Column("flops", sa.Float, nullable=False, server_default="0"))
