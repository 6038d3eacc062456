"""The access log: one JSON line a request, with its id and its history, never a secret or a prompt."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, Any

import orjson

from policies.service import CacheStatus, Call, Usage

_LOG = logging.getLogger(__name__)
_DELAY = 0.05


@dataclass(slots=True)
class AccessRecord:
    """What is known of one request when it is over. Times are in seconds."""

    request_id: str
    method: str
    path: str
    status: int
    outcome: str
    duration: float
    key: str | None = None
    call: Call | None = None
    first_event: float | None = None
    upstream: str | None = None
    usage: Usage | None = None
    cached: CacheStatus | None = None
    trace: str | None = None


class AccessLog:
    """Writes records to a buffered binary stream as JSON lines.

    Lines of a moment come out together: ``call_later`` (an event loop's) is given the delay in seconds
    and the flush.
    """

    def __init__(self, stream: IO[bytes], call_later: Callable[[float, Callable[[], None]], object]) -> None:
        self._stream = stream
        self._call_later = call_later
        self._flush_due = False
        self._failing = False

    def write(self, record: AccessRecord, wall_time: float) -> None:
        """Write one line. ``wall_time`` is when the request ended, in seconds since the epoch."""
        line = {
            "time": datetime.fromtimestamp(wall_time, UTC),
            "request_id": record.request_id,
            "method": record.method,
            "path": record.path,
            "status": record.status,
            "outcome": record.outcome,
            "duration_ms": _millis(record.duration),
        }
        if record.trace is not None:
            line["trace_id"] = record.trace
        if record.key is not None:
            line["key"] = record.key
        if record.call is not None:
            line |= _call_facts(record.call)
        if record.upstream is not None:
            line["upstream"] = record.upstream
        if record.first_event is not None:
            line["first_event_ms"] = _millis(record.first_event)
        if record.usage is not None:
            line["input_tokens"] = record.usage.input
            line["output_tokens"] = record.usage.output
        if record.cached is not None:
            line["cache"] = record.cached.state
        try:
            self._stream.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        except OSError as error:
            self._failed(error)
        if not self._flush_due:
            self._flush_due = True
            self._call_later(_DELAY, self.flush)

    def flush(self) -> None:
        """Hand on what was written so far."""
        self._flush_due = False
        try:
            self._stream.flush()
        except OSError as error:
            self._failed(error)
        else:
            self._failing = False

    def _failed(self, error: OSError) -> None:
        """A full disk, or nobody at the other end of a pipe, costs lines of the log and no request."""
        if not self._failing:
            _LOG.warning("the access log can't be written: %s", error)
        self._failing = True


def _call_facts(call: Call) -> dict[str, Any]:
    return {
        "tenant": call.tenant,
        "tier": call.tier,
        "model": call.model,
        "stream": call.stream,
        "attempts": [
            {
                "upstream": attempt.upstream,
                "model": attempt.model,
                "outcome": attempt.outcome,
                "duration_ms": _millis(attempt.duration),
            }
            for attempt in call.attempts
        ],
    }


def _millis(seconds: float) -> float:
    return round(seconds * 1000, 3)
