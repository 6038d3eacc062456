"""Tables as CSV (RFC 4180), sent row by row."""

import csv
import io
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse

MEDIA_TYPE = "text/csv"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def wants_csv(request: Request, named: str | None) -> bool:
    """Whether the caller asks for CSV, by name or by its Accept header."""
    return named == "csv" or (named is None and MEDIA_TYPE in request.headers.get("accept", ""))


def answer(
    columns: Sequence[str], pages: AsyncIterable[Iterable[Mapping[str, Any]]], name: str
) -> StreamingResponse:
    """An answer with these columns of every row of every page, to be saved under this name."""
    headers = {"content-disposition": f'attachment; filename="{name}.csv"'}
    return StreamingResponse(_written(columns, pages), media_type=MEDIA_TYPE, headers=headers)


async def _written(
    columns: Sequence[str], pages: AsyncIterable[Iterable[Mapping[str, Any]]]
) -> AsyncIterator[str]:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(columns)
    async for rows in pages:
        writer.writerows([_cell(row[column]) for column in columns] for row in rows)
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _cell(value: Any) -> Any:
    """What is known as it is. Text that a spreadsheet would take for a formula gets a quote before it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
