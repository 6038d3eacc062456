"""HTTP/1.1 on raw asyncio streams, for a server that has to be able to break its rules."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

_CONNECTIONS = Path("/proc/net/tcp")
_POLL = 0.005


class Broken(Exception):
    """The server ended the connection on purpose, in the middle of an answer."""


@dataclass
class Request:
    """A request as it came; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    raw: bytes

    def json(self) -> Any:
        """The body's JSON; None where it is empty or something else."""
        try:
            return json.loads(self.raw)
        except ValueError:
            return None


async def read_request(reader: asyncio.StreamReader, ahead: bytes = b"") -> Request | None:
    """The next request of a connection, which begins with ``ahead``; None where the client closed it."""
    try:
        head = ahead + await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    start, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = start.split(" ", 2)
    pairs = (line.split(":", 1) for line in lines if line)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = await _read_chunked(reader)
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, path, headers, body)


async def _read_chunked(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while True:
        size = int((await reader.readline()).split(b";")[0], 16)
        parts.append((await reader.readexactly(size + 2))[:-2])
        if size == 0:
            return b"".join(parts)


@dataclass
class Answer:
    """One answer under way; what isn't said is left out. ``finishing`` is when its last part began."""

    writer: asyncio.StreamWriter
    written: int = field(default=0)
    status: int | None = None
    finishing: float | None = None

    async def whole(
        self, status: int, body: Any, headers: Mapping[str, str] | None = None, kind: str = "application/json"
    ) -> None:
        """A complete answer; ``body`` is JSON, or text of another ``kind``."""
        data = body.encode() if isinstance(body, str) else json.dumps(body, ensure_ascii=False).encode()
        given = {"content-type": kind, "content-length": str(len(data)), **(headers or {})}
        self.status = status
        await self.raw(_head(status, given) + data)

    async def begin(self, kind: str, *, chunked: bool = True) -> None:
        """The head of a 200 whose body comes piece by piece; not ``chunked`` means until the end of all."""
        self.status = 200
        framing = {"transfer-encoding": "chunked"} if chunked else {"connection": "close"}
        await self.raw(_head(200, {"content-type": kind, **framing}))

    async def piece(self, data: bytes) -> None:
        """One chunk of a chunked body."""
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        """The end of a chunked body."""
        await self.raw(b"0\r\n\r\n")

    async def raw(self, data: bytes) -> None:
        """Bytes as they are."""
        self.written += len(data)
        self.writer.write(data)
        await self.writer.drain()

    async def read(self) -> None:
        """Wait until the other side, on this machine too, has taken all that was sent from its socket."""
        us, them = (_as_listed(self.writer.get_extra_info(name)) for name in ("sockname", "peername"))
        while _waiting_to_be_read(them, us):
            await asyncio.sleep(_POLL)

    def close(self) -> None:
        """End the connection with a FIN. Raises ``Broken``."""
        self.writer.close()
        raise Broken

    def reset(self) -> None:
        """End the connection with an RST. Raises ``Broken``."""
        self.writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self.writer.transport.abort()
        raise Broken


def _waiting_to_be_read(local: str, remote: str) -> bool:
    """Whether a connection's end at ``local`` has bytes that its process hasn't read."""
    for line in _CONNECTIONS.read_text(encoding="ascii").splitlines():
        _, at, to, _, queues, *_ = line.split()
        if (at, to) == (local, remote):
            return int(queues.partition(":")[2], 16) > 0
    return False


def _as_listed(address: tuple[str, int]) -> str:
    host, port = address
    return f"{socket.inet_aton(host)[::-1].hex().upper()}:{port:04X}"


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_phrase(status)}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _phrase(status: int) -> str:
    with contextlib.suppress(ValueError):
        return HTTPStatus(status).phrase
    return "Unknown"
