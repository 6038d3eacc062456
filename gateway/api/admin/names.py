"""What ids and names below /admin may be, and times as the API writes them."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Path, Query
from pydantic import AwareDatetime, Field

_LATEST = datetime(9999, 12, 31, tzinfo=UTC).timestamp()

Label = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""Printable text of one line."""

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^/\x00-\x1f\x7f]+$")]
"""Printable text that fits into a path."""

PathName = Annotated[str, Path(min_length=1, max_length=200, pattern=r"^[^/\x00-\x1f\x7f]+$")]
Filter = Annotated[Label | None, Query()]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]


def seconds(moment: AwareDatetime | None) -> float | None:
    """Seconds since the epoch, within the years that every calendar here knows."""
    return None if moment is None else min(max(moment.timestamp(), 0.0), _LATEST)


def moment(since_epoch: float) -> datetime:
    """The time that ``seconds`` stand for."""
    return datetime.fromtimestamp(min(since_epoch, _LATEST), UTC)
