"""Writes that are ended properly although their task is cancelled.

A connection to SQLite that is left in the middle of a write keeps the database's lock for a while, and
the next writer, who may be the last before the process ends, waits in vain. A server that has gone silent
is another matter: nobody waits for that for ever.
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")

_PATIENCE = 6.0
"""Seconds: SQLite itself waits for a lock for less."""


def uninterrupted(write: Callable[_P, Coroutine[Any, Any, _R]]) -> Callable[_P, Coroutine[Any, Any, _R]]:
    """Have ``write`` come to its end before its caller is cancelled."""

    @wraps(write)
    async def written(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        writing = asyncio.ensure_future(write(*args, **kwargs))
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing], timeout=_PATIENCE)
            writing.cancel()
            raise

    return written
