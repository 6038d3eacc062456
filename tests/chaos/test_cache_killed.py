"""kill -9 in the middle of writes: no corrupt answer is ever served, and the file goes on working.

``python tests/chaos/test_cache_killed.py 1000`` runs a thousand rounds and prints what it found.
"""

import asyncio
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random

from tests.kit.cache_writer import CAPACITY, KEYS, body, key, open_tier
from tests.kit.processes import ROOT

ROUNDS = 10


async def survivors(path):
    """Read everything as the gateway would; how many answers there are, how many are wrong, and the facts."""
    tier = open_tier(path)
    found = wrong = 0
    for number in range(KEYS):
        kept = await tier.get(key(number))
        if kept is not None:
            found += 1
            wrong += kept.answer.body != body(key(number), len(kept.answer.body))
    facts = [fact for fact in tier._meter.facts if type(fact).__name__ == "CacheDropped"]
    size = await tier.size()
    await tier.close()
    return found, wrong, facts, size


def kill_one(path, seed, rng):
    """Start a writer, kill it in the midst."""
    argv = [sys.executable, "-m", "tests.kit.cache_writer", str(path), str(seed)]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"writing\n"
        try:
            writer.wait(rng.uniform(0.0, 0.08))
        except subprocess.TimeoutExpired:
            writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert writer.returncode == -signal.SIGKILL


def rounds(path, count):
    """The totals of so many rounds on one file."""
    rng = Random()
    totals = {"rounds": count, "answers read": 0, "wrong": 0, "dropped": 0, "over its bound": 0, "empty": 0}
    for seed in range(count):
        kill_one(path, seed, rng)
        found, wrong, facts, size = asyncio.run(survivors(path))
        totals["answers read"] += found
        totals["wrong"] += wrong
        totals["dropped"] += len(facts)
        totals["over its bound"] += size.bytes > CAPACITY
        totals["empty"] += not found
    return totals


def test_a_killed_writer_leaves_no_corrupt_answer(tmp_path):
    totals = rounds(tmp_path / "cache.db", ROUNDS)
    assert (totals["wrong"], totals["dropped"], totals["over its bound"]) == (0, 0, 0)
    assert totals["answers read"] > ROUNDS


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(rounds(Path(folder) / "cache.db", int(sys.argv[1])))  # noqa: T201 - a script
