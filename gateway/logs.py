"""The process's own log, on standard error; requests have the access log."""

import logging

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_QUIET = ("httpx", "uvicorn.error", "alembic", "aiosqlite", "asyncio")


def configure_logging(level: str) -> None:
    """Log at ``level`` (debug, info, warning, error); libraries only from warnings on."""
    logging.basicConfig(level=level.upper(), format=_FORMAT)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
