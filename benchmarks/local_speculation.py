"""Tokens a second with and without guessing ahead, greedy, one answer at a time, on the bundled model.

Both take turns, so that other load falls on both alike; on a busy machine --cpu-time says more.

    python benchmarks/local_speculation.py [--tokens 96] [--rounds 3] [--threads 1] [--cpu-time]
"""

import argparse
import statistics
from queue import SimpleQueue

import torch

from local_backend.clock import cpu_time, now
from local_backend.engine.latents import LatentFormat, LatentPool
from local_backend.engine.load import Load
from local_backend.engine.options import EngineOptions
from local_backend.engine.request import Event, Finished, SamplingParams, Sequence, Token
from local_backend.engine.runner import ModelRunner
from local_backend.engine.worker import Command, Worker
from local_backend.launch import choose_dtype, choose_scheduling
from local_backend.lengths import BLOCK_SIZE
from local_backend.serve.tokenizer import Tokenizer
from local_backend.weights.load import activation_dtype, load_model
from local_backend.weights.paths import default_cache_dir
from local_backend.weights.prepare import BUNDLED_MODEL, prepare_model
from local_backend.weights.progress import StderrProgress

LENGTH, BLOCKS = 2048, 64
CPU = torch.device("cpu")
LETTER = (
    "Dear Mrs Larsen, the harbour office opens at nine and closes at five. The ferry to the island leaves at "
    "ten past nine, at noon and at four. Tickets are sold on board. Please bring the papers for your boat."
)
TASKS = {
    "copies its prompt": f"Repeat this letter word for word:\n\n{LETTER}",
    "lists": "Count from 1 to 40, one number on each line.",
    "writes freely": "Write a short story about a lighthouse keeper and a storm.",
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true", help="count seconds of the processor")
    options = parser.parse_args()
    clock = cpu_time if options.cpu_time else now
    folder = prepare_model(BUNDLED_MODEL, "exact", default_cache_dir(), StderrProgress()).path
    torch.set_num_threads(options.threads)
    dtype = choose_dtype("auto", CPU)
    model = load_model(folder, LENGTH, CPU, dtype)
    tokenizer = Tokenizer(folder)
    activations = activation_dtype(CPU, dtype)

    def answer(task: str, guesses: int) -> tuple[list[int], float, Load]:
        pool = LatentPool(model.config, BLOCKS, BLOCK_SIZE, CPU, LatentFormat(activations, activations))
        commands: SimpleQueue[Command] = SimpleQueue()
        tokens: list[int] = []
        times: list[float] = []

        def post(events: list[tuple[int, Event]]) -> None:
            for _, event in events:
                if isinstance(event, Token):
                    tokens.append(event.id)
                    times.append(clock())
                elif isinstance(event, Finished):
                    commands.put(None)

        engine = EngineOptions(
            0,
            LENGTH,
            model.config.vocab_size,
            (),
            BLOCKS,
            BLOCK_SIZE,
            scheduling=choose_scheduling(1, CPU, dtype),
            guesses=guesses,
        )
        prompt = tokenizer.encode_chat([{"role": "user", "content": task}])
        commands.put(Sequence(0, tuple(prompt), SamplingParams(options.tokens, temperature=0.0)))
        worker = Worker(ModelRunner(model, pool, CPU), engine, commands, post, lambda: None)
        worker.run()
        return tokens, (len(tokens) - 1) / (times[-1] - times[0]), worker.load

    answer(TASKS["lists"], 0)
    print(
        "| task | without, tokens/s | with | ratio | guesses right | same text |\n|---|---|---|---|---|---|"
    )
    for name, task in TASKS.items():
        pairs = [(answer(task, 0), answer(task, 8)) for _ in range(options.rounds)]
        slow, fast = (statistics.median(speed for _, speed, _ in runs) for runs in zip(*pairs, strict=True))
        guessed = sum(load.guessed for _, (_, _, load) in pairs)
        right = sum(load.guessed_right for _, (_, _, load) in pairs)
        same = all(plain[0] == other[0] for plain, other in pairs)
        share = f"{right / guessed:.0%} of {guessed / options.rounds:.0f}" if guessed else "none made"
        print(
            f"| {name} | {slow:.1f} | {fast:.1f} | {fast / slow:.2f} | {share} | {'yes' if same else 'NO'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
