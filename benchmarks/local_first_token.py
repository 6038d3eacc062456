"""The first token of a short prompt: this server's model against transformers on the same weights and cores.

Both sides load the converted folder, warm up once and then take turns, so that other load on the machine
falls on both alike. `--http` also measures the whole way through a running server.

    python benchmarks/local_first_token.py [--threads 2] [--rounds 7] [--http http://127.0.0.1:8090]
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1]))

from local_backend.engine.latents import LatentPool
from local_backend.launch import choose_dtype
from local_backend.serve.tokenizer import Tokenizer
from local_backend.weights.load import load_model
from local_backend.weights.paths import default_cache_dir
from local_backend.weights.prepare import BUNDLED_MODEL, prepare_model
from local_backend.weights.progress import StderrProgress

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
CPU = torch.device("cpu")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--decode", type=int, default=16, help="tokens for the decoding speed")
    parser.add_argument("--http", help="base URL of a running server")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    folder = prepare_model(BUNDLED_MODEL, "exact", default_cache_dir(), StderrProgress()).path
    ids = Tokenizer(folder).encode_chat(MESSAGES)

    contenders: dict[str, Callable[[int], int]] = {}
    for dtype in {torch.float32, choose_dtype("auto", CPU)}:
        contenders[f"local_backend {dtype}"] = ours(folder, ids, dtype)
    for dtype in (torch.float32, torch.bfloat16):
        contenders[f"transformers {dtype}"] = theirs(folder, ids, dtype)
    if options.http:
        contenders["server, over HTTP"] = served(options.http)

    first: dict[str, list[float]] = {name: [] for name in contenders}
    whole: dict[str, list[float]] = {name: [] for name in contenders}
    for each in contenders.values():
        each(2)
    for _ in range(options.rounds):
        for name, generate in contenders.items():
            first[name].append(timed(generate, 1))
            whole[name].append(timed(generate, 1 + options.decode))
    print(f"{len(ids)} prompt tokens, {options.threads} threads, {options.rounds} rounds; medians (best)")
    print(f"{'':34s} {'first token ms':>20s} {'tokens/s after it':>20s}")
    for name in contenders:
        rates = [options.decode / max(w - f, 1e-9) for w, f in zip(whole[name], first[name], strict=True)]
        milliseconds = [1000 * value for value in first[name]]
        shown = f"{statistics.median(milliseconds):10.0f} ({min(milliseconds):.0f})"
        print(f"{name:34s} {shown:>20s} {f'{statistics.median(rates):.1f} ({max(rates):.1f})':>20s}")


def timed(generate: Callable[[int], int], tokens: int) -> float:
    """Seconds to generate that many tokens; each must really have been generated."""
    start = time.perf_counter()  # noqa: TID251
    made = generate(tokens)
    seconds = time.perf_counter() - start  # noqa: TID251
    if made != tokens:
        raise RuntimeError(f"{made} tokens instead of {tokens}")
    return seconds


def ours(folder: Path, ids: list[int], dtype: torch.dtype) -> Callable[[int], int]:
    """Greedy decoding with this package's model."""
    model = load_model(folder, 256, CPU, dtype)
    pool = LatentPool(model.config, 1, 256, CPU)

    def generate(tokens: int) -> int:
        positions = torch.arange(len(ids))[None]
        hidden = model(torch.tensor([ids]), positions, pool.rows([0], 0, len(ids)))
        last = model.logits(hidden[:, -1:]).argmax(-1)
        for position in range(len(ids), len(ids) + tokens - 1):
            view = pool.rows([0], position, position + 1)
            hidden = model(last, torch.tensor([[position]]), view)
            last = model.logits(hidden).argmax(-1)
        return tokens

    return generate


def theirs(folder: Path, ids: list[int], dtype: torch.dtype) -> Callable[[int], int]:
    """Greedy decoding with transformers' DeepseekV3ForCausalLM and its cache."""
    model = transformers.DeepseekV3ForCausalLM.from_pretrained(folder, dtype=dtype).eval()

    def generate(tokens: int) -> int:
        step = model(torch.tensor([ids]), use_cache=True, logits_to_keep=1)
        for _ in range(tokens - 1):
            last = step.logits[:, -1:].argmax(-1)
            step = model(last, past_key_values=step.past_key_values, use_cache=True)
        return tokens

    return generate


def served(url: str) -> Callable[[int], int]:
    """A streamed chat over HTTP, tokens counted as they arrive."""
    client = httpx.Client(base_url=url, trust_env=False, timeout=120)

    def generate(tokens: int) -> int:
        body = {"model": BUNDLED_MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": tokens}
        # Without an end every answer is as long as asked for.
        body |= {
            "stream": True,
            "stream_options": {"include_usage": True},
            "logit_bias": {"2": -100, "0": -100},
        }
        made = 0
        with client.stream("POST", "/v1/chat/completions", json=body) as reply:
            for line in reply.iter_lines():
                if line.startswith("data: {") and (usage := json.loads(line[6:]).get("usage")):
                    made = usage["completion_tokens"]
        return made

    return generate


if __name__ == "__main__":
    main()
