"""Tokens a second with and without guessing ahead, greedy, one answer at a time, on the bundled model.

python benchmarks/local_speculation.py [--tokens 96]
"""

import argparse
from queue import SimpleQueue

import torch

from local_backend.clock import now
from local_backend.engine.latents import LatentFormat, LatentPool
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
    options = parser.parse_args()
    folder = prepare_model(BUNDLED_MODEL, "exact", default_cache_dir(), StderrProgress()).path
    torch.set_num_threads(1)
    dtype = choose_dtype("auto", CPU)
    model = load_model(folder, LENGTH, CPU, dtype)
    tokenizer = Tokenizer(folder)
    activations = activation_dtype(CPU, dtype)

    def answer(task: str, guesses: int) -> tuple[list[int], float, str]:
        pool = LatentPool(model.config, BLOCKS, BLOCK_SIZE, CPU, LatentFormat(activations, activations))
        commands: SimpleQueue[Command] = SimpleQueue()
        tokens: list[int] = []
        times: list[float] = []

        def post(events: list[tuple[int, Event]]) -> None:
            for _, event in events:
                if isinstance(event, Token):
                    tokens.append(event.id)
                    times.append(now())
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
        load = worker.load
        return tokens, (len(tokens) - 1) / (times[-1] - times[0]), f"{load.guessed_right} of {load.guessed}"

    answer(TASKS["lists"], 0)
    print("| task | without, tokens/s | with | guesses right | same text |\n|---|---|---|---|---|")
    for name, task in TASKS.items():
        plain, slow, _ = answer(task, 0)
        guessed, fast, right = answer(task, 8)
        print(
            f"| {name} | {slow:.1f} | {fast:.1f} | {right} | {'yes' if plain == guessed else 'NO'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
