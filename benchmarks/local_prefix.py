"""What the prefix cache saves: the time to the first token of a long prompt, asked first and asked again.

Every round has a beginning of its own, so its first request finds nothing; the second has the same beginning
and another question.

    python benchmarks/local_prefix.py [--threads 2] [--rounds 5] [--shared 1000]
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from local_backend.engine.engine import Engine
from local_backend.engine.latents import LatentPool
from local_backend.engine.options import EngineOptions
from local_backend.engine.request import Finished, SamplingParams
from local_backend.engine.runner import ModelRunner
from local_backend.launch import choose_dtype
from local_backend.weights.load import load_model
from local_backend.weights.paths import default_cache_dir
from local_backend.weights.prepare import BUNDLED_MODEL, prepare_model
from local_backend.weights.progress import StderrProgress

CPU = torch.device("cpu")
LENGTH = 4096
QUESTION = 30


def main() -> None:
    """Measure and print the two times."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shared", type=int, default=1000, help="tokens that both requests begin with")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = prepare_model(BUNDLED_MODEL, "exact", default_cache_dir(), StderrProgress()).path
    model = load_model(folder, LENGTH, CPU, choose_dtype("auto", CPU))
    blocks = 2 * LENGTH // 64
    engine_options = EngineOptions(
        max_queue=0,
        max_length=LENGTH,
        vocab_size=model.config.vocab_size,
        eos_token_ids=(),
        blocks=blocks,
    )
    runner = ModelRunner(model, LatentPool(model.config, blocks, 64, CPU), CPU)
    cold, warm = asyncio.run(measure(Engine(runner, engine_options), options.rounds, options.shared))
    before, after = statistics.median(cold), statistics.median(warm)
    print(
        f"{options.shared} shared and {QUESTION} own tokens, {options.threads} threads, {options.rounds}x, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    print(f"first token: {1000 * before:.0f} ms the first time, {1000 * after:.0f} ms the second", end=", ")
    print(f"{100 * (1 - after / before):.0f}% less")


async def measure(engine: Engine, rounds: int, shared: int) -> tuple[list[float], list[float]]:
    """Seconds to the first token of first and second requests."""
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(1000, 40000, (count,), generator=generator).tolist()

    async def first_token(prompt: list[int]) -> float:
        start = time.perf_counter()  # noqa: TID251
        async for _, event in engine.submit([prompt], [SamplingParams(max_tokens=1, temperature=0.0)]):
            if not isinstance(event, Finished):
                seconds = time.perf_counter() - start  # noqa: TID251
        return seconds

    engine.start()
    await first_token(tokens(QUESTION))
    cold, warm = [], []
    for _ in range(rounds):
        beginning = tokens(shared)
        cold.append(await first_token(beginning + tokens(QUESTION)))
        warm.append(await first_token(beginning + tokens(QUESTION)))
    await engine.stop()
    return cold, warm


if __name__ == "__main__":
    main()
