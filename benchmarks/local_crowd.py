"""A crowd at the model server: many chats at once, some leave, and each finished one says what it says alone.

Chats have random lengths, priorities and shared beginnings; some disconnect in the middle, some before
the first token. Those that finish are then asked again one by one, under a tenant of their own each, so
that nothing is shared and nobody else is there; greedy texts must be equal and no block of the cache held.
Without --url a server is started with so little cache that sequences are preempted.

    python benchmarks/local_crowd.py [--chats 200] [--threads 2] [--url http://127.0.0.1:8090]
"""

import argparse
import asyncio
import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

MODEL = "smollm2-135m-moe"
WORDS = (
    "river", "stone", "market", "winter", "letter", "garden", "engine", "paper", "silver", "bridge", "window",
)  # fmt: skip
SYSTEMS = [
    "You are a careful librarian. " + "Answer in short sentences and name the book. " * 14,
    "You are a cook. " + "Say which herbs go with it. " * 10,
    "You are a helpful assistant.",
]


@dataclass(frozen=True)
class Chat:
    """`leaves` after so many events of the stream, None when it stays to the end."""

    body: dict[str, Any]
    priority: int
    leaves: int | None


@dataclass
class Outcome:
    """What a crowd came to; `different` holds the indices of chats that said something else alone."""

    finished: dict[int, str] = field(default_factory=dict)
    left: int = 0
    refused: int = 0
    tokens: int = 0
    seconds: float = 0.0
    different: list[int] = field(default_factory=list)


def make_chats(count: int, most_tokens: int, seed: int = 0) -> list[Chat]:
    """Random chats, the same for the same seed; a quarter of them leave."""
    rng = random.Random(seed)
    chats = []
    for _ in range(count):
        question = " ".join(rng.choices(WORDS, k=rng.randint(1, 60)))
        messages = [
            {"role": "system", "content": rng.choice(SYSTEMS)},
            {"role": "user", "content": f"Tell me about {question}."},
        ]
        body = {
            "model": MODEL,
            "messages": messages,
            "temperature": 0,
            "max_tokens": rng.randint(2, most_tokens),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        chats.append(Chat(body, rng.randint(0, 2), rng.randint(0, 12) if rng.random() < 0.25 else None))
    return chats


async def crowd(url: str, chats: list[Chat]) -> Outcome:
    """All chats at once, then those that finished again alone."""
    outcome = Outcome()
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=None, limits=limits) as client:
        started = time.perf_counter()  # noqa: TID251
        await asyncio.gather(*(_ask(client, index, chat, outcome) for index, chat in enumerate(chats)))
        outcome.seconds = time.perf_counter() - started  # noqa: TID251
        for index, text in outcome.finished.items():
            alone = Outcome()
            await _ask(client, index, Chat(chats[index].body, 0, None), alone, tenant=f"alone-{index}")
            if alone.finished.get(index) != text:
                outcome.different.append(index)
    return outcome


async def _ask(
    client: httpx.AsyncClient, index: int, chat: Chat, outcome: Outcome, tenant: str = "crowd"
) -> None:
    headers = {"x-tidegate-tenant": tenant, "x-tidegate-priority": str(chat.priority)}
    text, events = "", 0
    asked = client.stream("POST", "/v1/chat/completions", json=chat.body, headers=headers)
    try:
        # Some leave while they wait for the first token; the others as the text comes.
        patience = 0.05 if chat.leaves == 0 else None
        async with asyncio.timeout(patience), asked as reply:
            if reply.status_code != httpx.codes.OK:
                outcome.refused += 1
                return
            async for line in reply.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line[6:])
                for choice in event["choices"]:
                    text += choice["delta"].get("content") or ""
                outcome.tokens += (event.get("usage") or {}).get("completion_tokens", 0)
                events += 1
                if events == chat.leaves:
                    outcome.left += 1
                    return
    except TimeoutError:
        outcome.left += 1
        return
    outcome.finished[index] = text


async def quiet_load(url: str) -> dict[str, Any]:
    """The server's /load once nothing runs."""
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        while True:
            load: dict[str, Any] = (await client.get("/load")).json()
            if not load["running"] and not load["waiting"]:
                return load
            await asyncio.sleep(0.05)  # noqa: TID251


@contextmanager
def server(threads: int, chats: int) -> Iterator[str]:
    """A server that can hold all chats but not all of their latents."""
    with httpx.Client(trust_env=False) as client:
        port = _free_port()
        command = [sys.executable, "-m", "local_backend", "serve", "--port", str(port)]
        command += ["--threads", str(threads), "--max-concurrency", "16", "--max-queue", str(chats)]
        command += ["--max-length", "1024", "--cache-memory", "0.08"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        url = f"http://127.0.0.1:{port}"
        try:
            while True:
                try:
                    client.get(f"{url}/healthz")
                    break
                except httpx.TransportError:
                    if process.poll() is not None:
                        raise RuntimeError("the server did not start") from None
                    time.sleep(0.1)  # noqa: TID251
            yield url
        finally:
            process.terminate()
            process.wait()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def main() -> int:
    """Run the crowd and print what it came to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--chats", type=int, default=200)
    parser.add_argument("--most-tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--url")
    options = parser.parse_args()
    if options.url:
        return asyncio.run(_report(options.url, options))
    with server(options.threads, options.chats) as url:
        return asyncio.run(_report(url, options))


async def _report(url: str, options: argparse.Namespace) -> int:
    outcome = await crowd(url, make_chats(options.chats, options.most_tokens))
    load = await quiet_load(url)
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        metrics = (await client.get("/metrics")).text
    finished = len(outcome.finished)
    print(f"{options.chats} chats: {finished} finished, {outcome.left} left, {outcome.refused} refused")
    print(
        f"{outcome.tokens} tokens in {outcome.seconds:.0f} s, {outcome.tokens / outcome.seconds:.1f} tokens/s"
    )
    for line in metrics.splitlines():
        if line.startswith(("tidegate_local_pre", "tidegate_local_engine", "tidegate_local_failed")):
            print(line)
    held = load["blocks"] - load["free_blocks"]
    print(f"texts that differ from the same chat alone: {len(outcome.different)}; blocks still held: {held}")
    return 1 if outcome.different or held or outcome.refused else 0


if __name__ == "__main__":
    sys.exit(main())
