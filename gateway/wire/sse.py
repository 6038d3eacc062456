"""Server-sent events, read and written (WHATWG HTML, section 9.2: Server-sent events)."""

DONE = b"[DONE]"
DONE_MESSAGE = b"data: [DONE]\n\n"
WAITING_COMMENT = b": waiting for the first token\n\n"

_CR = ord("\r")
_LF = ord("\n")
"""Looked for as a number: as bytes that would cost ten times as much, and it is done for every message."""


class EventDecoder:
    """Cuts a byte stream into the data of its messages, however the network cut it.

    Only ``data`` matters in this protocol: comments, blank lines and the other fields yield nothing.
    Bytes are never decoded here, so a character split across two reads stays whole.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._held = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes and return the data of each message that they complete."""
        parts = self._parts
        if _LF not in chunk and _CR not in chunk and not self._held:
            parts.append(chunk)  # of a long line, put together once: each time anew would take its square
            return []
        if parts:
            parts.append(chunk)
            text = b"".join(parts)
            parts.clear()
        else:
            text = chunk
        if _CR in text:
            # A lone CR at the end may be the first half of a CRLF: it waits for what follows.
            self._held = held = text[-1:] == b"\r"
            text = text[: len(text) - held].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        complete, _, rest = text.rpartition(b"\n\n")
        if rest:
            parts.append(rest)
        if self._held:
            parts.append(b"\r")
        return [data for block in complete.split(b"\n\n") if (data := _data_of(block)) is not None]

    def flush(self) -> list[bytes]:
        """Return the data of a last message that the stream ended without terminating."""
        data = _data_of(b"".join(self._parts).replace(b"\r", b""))
        self._parts.clear()
        return [] if data is None else [data]


def _data_of(block: bytes) -> bytes | None:
    if block.startswith(b"data: ") and _LF not in block:
        return block[6:]
    lines = [line[5:].removeprefix(b" ") for line in block.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def message(data: bytes) -> bytes:
    """Write ``data`` as one message."""
    if _LF in data:
        return b"".join(b"data: %b\n" % line for line in data.split(b"\n")) + b"\n"
    return b"data: %b\n\n" % data
