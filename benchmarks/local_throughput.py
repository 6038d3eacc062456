"""Tokens a second with 1, 8 and 32 answers at once: this engine, transformers and llama.cpp, side by side.

All run the same weights on the same cores and take turns, so that other load on the machine falls on all
alike. Each has a process of its own, since OpenMP's threads no longer spin for their next piece of work when
a process has more of them than cores. Every answer has the same length; prompts are of equal length, so that
transformers needs no padding. What the first token takes is subtracted: the rate is that of decoding.
llama.cpp takes part where its Python package is installed (local_llama_cpp.py). Memory is what a contender
adds to its process once it has answered. Figures are only valid on an otherwise idle machine; --cpu-time with
one thread is next best on a busy one.

    python benchmarks/local_throughput.py [--threads 2] [--rounds 2] [--batches 1 8 32]
"""

import argparse
import importlib.util
import multiprocessing
import os
import statistics
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from local_contenders import Time, serve

NAMES = {"ours": "local_backend", "transformers": "transformers bfloat16", "llama_cpp": "llama.cpp"}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=48, help="of every answer")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--cpu-time", action="store_true", help="count seconds of the processor")
    options = parser.parse_args()
    names = [name for name in NAMES if name != "llama_cpp" or importlib.util.find_spec(name)]
    started = {name: start(name, options.threads, max(options.batches)) for name in names}
    contenders = {name: pipe for name, (pipe, _) in started.items()}
    prompt, memory = 0, {}
    for name, pipe in contenders.items():
        prompt, memory[name] = pipe.recv()
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(options.rounds):
        for batch in options.batches:
            for name, pipe in contenders.items():
                first = timed(pipe, batch, 1)
                whole = timed(pipe, batch, options.tokens)
                seconds = whole.cpu - first.cpu if options.cpu_time else whole.wall - first.wall
                rates.setdefault((name, batch), []).append(batch * (options.tokens - 1) / seconds)
    print(
        f"{prompt} prompt and {options.tokens} answer tokens, {options.threads} threads, load "
        f"{os.getloadavg()[0]:.1f}; tokens/s after the first, median of {options.rounds} (best)"
    )
    base = statistics.median(rates["transformers", options.batches[0]])
    for name in contenders:
        shown = [f"{NAMES[name]:24s}"]
        for batch in options.batches:
            median, best = statistics.median(rates[name, batch]), max(rates[name, batch])
            shown.append(f"{batch:3d}: {median:6.1f} ({best:5.1f}) {median / base:4.1f}x")
        print("   ".join([*shown, f"{memory[name]:5.0f} MB"]))
    for pipe, process in started.values():
        pipe.close()
        process.join()


def start(name: str, threads: int, most: int) -> tuple[Connection, BaseProcess]:
    """A contender's process and the way to it; it first tells its prompt's length and its memory."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, name, threads, most), daemon=True)
    process.start()
    there.close()
    return here, process


def timed(pipe: Connection, batch: int, tokens: int) -> Time:
    """What so many answers take; each token must really have been made."""
    pipe.send((batch, tokens))
    made, time = pipe.recv()
    if made != batch * tokens:
        raise RuntimeError(f"{made} tokens instead of {batch * tokens}")
    taken: Time = time
    return taken


if __name__ == "__main__":
    main()
