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
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes and return the data of each message that they complete."""
        text = self._rest + chunk if self._rest else chunk
        if _CR in text:
            # A lone CR at the end may be the first half of a CRLF: it waits for what follows.
            held = text[-1:] == b"\r"
            text = text[: len(text) - held].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            text, self._rest = self._split(text)
            self._rest += b"\r" * held
        else:
            text, self._rest = self._split(text)
        return [data for block in text.split(b"\n\n") if (data := _data_of(block)) is not None]

    def flush(self) -> list[bytes]:
        """Return the data of a last message that the stream ended without terminating."""
        data = _data_of(self._rest.replace(b"\r", b""))
        self._rest = b""
        return [] if data is None else [data]

    @staticmethod
    def _split(text: bytes) -> tuple[bytes, bytes]:
        complete, separator, rest = text.rpartition(b"\n\n")
        return (complete, rest) if separator else (b"", rest)


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
