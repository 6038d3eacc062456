"""A small crowd at the real model: company and shared prefixes change no text, leave no block."""

import asyncio

from benchmarks.local_crowd import crowd, make_chats, quiet_load
from local_backend.weights.prepare import ModelFolder
from tests.local_backend.server_process import ServerProcess


def test_every_chat_says_in_a_crowd_what_it_says_alone(bundled: ModelFolder) -> None:
    del bundled
    small = ("--max-concurrency", "3", "--max-queue", "20", "--max-length", "512", "--cache-memory", "0.035")
    with ServerProcess(*small) as server:
        outcome = asyncio.run(crowd(server.url, make_chats(14, most_tokens=12, seed=6)))
        load = asyncio.run(quiet_load(server.url))
        assert server.metric("tidegate_local_prefix_hit_tokens_total") > 0
        assert server.metric("tidegate_local_engine_restarts_total") == 0
    assert len(outcome.finished) > 8
    assert outcome.left > 0
    assert outcome.refused == 0
    assert outcome.different == []
    assert load["free_blocks"] == load["blocks"]
