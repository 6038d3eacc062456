"""A time zone in which it is around noon, for tests of quotas that begin anew with the day or the month."""

from datetime import UTC, datetime

_NOON = 12


def noon() -> str:
    """The zone's name. No day ends there while a test runs."""
    return f"Etc/GMT{datetime.now(UTC).hour - _NOON:+d}"
