"""An OpenAI-compatible server in a process of its own that fails as told.

    python -m tests.kit.faulty_upstream --port 9000

The requested model's name says how it behaves (see ``tests.kit.behaviours``), so that a gateway's
route ``"fake/*"`` lets every test choose for itself: ``fake/ok``, ``fake/cut:at=40,how=fin``. A test
that needs a name to change its ways says so:

    POST   /_behave   {"model": NAME, "as": "status:code=500"}; as null takes it back
    POST   /_release  {"model": NAME}; who is held there goes on, and nobody is held any more
    GET    /_seen     every request that came: what it said, when, and what became of it
    DELETE /_seen     forget them
"""

import argparse
import asyncio
import contextlib
import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

from tests.kit import answers
from tests.kit.behaviours import BEHAVIOURS, Visit, released
from tests.kit.connection import Answer, Broken, Request, read_request

ANSWERED = "answered"
BROKEN = "broken"
DISCONNECTED = "disconnected"


@dataclass
class Seen:
    """One request that came. Times are the loop's, in seconds; ``ended`` is None while it is served.

    ``end`` is "answered", "broken" (by this server) or "disconnected" (by the client). The record tells
    as ``status`` what the head said, as ``written`` how many bytes were sent so far, and as ``finishing``
    when the finish_reason of a stream was about to be sent.
    """

    method: str
    path: str
    headers: dict[str, str]
    raw: str
    arrived: float
    ended: float | None = None
    end: str | None = None


class FaultyUpstream:
    """The server: its record, and what each model's name has been told to do."""

    def __init__(self) -> None:
        self._seen: list[tuple[Seen, Answer]] = []
        self._told: dict[str, str] = {}
        self._shared: dict[str, dict[str, Any]] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, Broken):
            ahead = b""
            while (request := await read_request(reader, ahead)) is not None:
                answer = Answer(writer)
                ahead = b""
                if request.path.startswith("/_"):
                    await self._control(request, answer)
                else:
                    ahead = await self._record(request, answer, reader)
        writer.close()

    async def _control(self, request: Request, answer: Answer) -> None:
        body: Any = {}
        if request.path == "/_behave":
            said = request.json()
            self._told.pop(said["model"], None)
            if said["as"] is not None:
                self._told[said["model"]] = said["as"]
        elif request.path == "/_release":
            released(self._in_common(request.json()["model"])).set()
        elif request.method == "DELETE":
            self._seen.clear()
        else:
            body = [
                {
                    **asdict(seen),
                    "status": given.status,
                    "written": given.written,
                    "finishing": given.finishing,
                }
                for seen, given in self._seen
            ]
        await answer.whole(200, body)

    def _in_common(self, model: str) -> dict[str, Any]:
        return self._shared.setdefault(model, {})

    async def _record(self, request: Request, answer: Answer, reader: asyncio.StreamReader) -> bytes:
        """Serve one request, and note what became of it; return what was read of the next one."""
        loop = asyncio.get_running_loop()
        raw = request.raw.decode(errors="replace")
        seen = Seen(request.method, request.path, request.headers, raw, loop.time())
        self._seen.append((seen, answer))
        serving = asyncio.create_task(self._behave(request, answer))
        reading = asyncio.create_task(_read_ahead(reader))
        try:
            await asyncio.wait((serving, reading), return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and not reading.result():
                serving.cancel()
            await asyncio.wait((serving,))
            seen.end = await _end_of(serving)
        finally:
            reading.cancel()
            seen.ended = loop.time()
        if seen.end != ANSWERED:
            raise Broken
        await asyncio.wait((reading,))
        return b"" if reading.cancelled() else reading.result()

    async def _behave(self, request: Request, answer: Answer) -> None:
        body = request.json()
        body = body if isinstance(body, dict) else {}
        model = str(body.get("model", "/ok"))
        name, _, options = self._told.get(model, model.rpartition("/")[2]).partition(":")
        behave = BEHAVIOURS.get(name)
        if behave is None:
            await answer.whole(
                404, answers.error(f"The model {model} does not exist.", code="model_not_found")
            )
            return
        chosen = dict(option.split("=", 1) for option in options.split(",") if option)
        visit = Visit(request, body, chosen, answer, self._in_common(model))
        if "times" in chosen:
            visit.shared["visits"] = visit.shared.get("visits", 0) + 1
            if visit.shared["visits"] > visit.count("times", 1):
                behave = BEHAVIOURS["ok"]
                visit.options = {name: value for name, value in chosen.items() if name == "tokens"}
        await behave(visit)


async def _read_ahead(reader: asyncio.StreamReader) -> bytes:
    """Wait for the client, which sends nothing while it is served: b"" means that it is gone."""
    try:
        return await reader.read(1)
    except ConnectionError:
        return b""


async def _end_of(serving: asyncio.Task[None]) -> str:
    try:
        await serving
    except Broken:
        return BROKEN
    except (asyncio.CancelledError, ConnectionError):
        return DISCONNECTED
    return ANSWERED


async def main(port: int) -> None:
    """Serve until terminated."""
    upstream = FaultyUpstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", port, backlog=2048)
    host, bound = server.sockets[0].getsockname()[:2]
    sys.stdout.write(json.dumps({"listening": f"http://{host}:{bound}"}) + "\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An OpenAI-compatible server that fails as told.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(parser.parse_args().port))
