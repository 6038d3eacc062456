"""What each form of the bundled model loses: perplexity by length, distance from exact, cached bytes.

    python benchmarks/local_quality.py                       # the table of forms
    python benchmarks/local_quality.py --only profile        # exact, and those whose name has that word
    python benchmarks/local_quality.py --only profile --text docs/policies/*.md --longest 512 --stretches 8

The text is the prose of Python's own language reference (pydoc_data, PSF licence), which every CPython has,
so that the figures can be had again without a network. The profiles were judged on it while they were made;
--text takes files that nothing was chosen by.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from local_backend.clock import now
from local_backend.commands.numbers import positive
from local_backend.compress.corpus import prose
from local_backend.compress.quality import Judged, divergence, judge
from local_backend.engine.latents import LatentFormat
from local_backend.errors import BackendError, ConfigError
from local_backend.serve.tokenizer import Tokenizer
from local_backend.weights.load import load_model
from local_backend.weights.paths import default_cache_dir
from local_backend.weights.prepare import BUNDLED_MODEL, prepare_model
from local_backend.weights.progress import StderrProgress
from local_backend.weights.repack import Quantization

CPU = torch.device("cpu")
LENGTHS = (512, 2048, 4096)


@dataclass(frozen=True)
class Variant:
    """A form of the model: its products, how its weights are stored, its cache, and its profile."""

    name: str
    dtype: torch.dtype = torch.float32
    quantization: Quantization = Quantization.NONE
    latents: torch.dtype = torch.float32
    profile: str = "exact"


VARIANTS = [
    Variant("exact (float32)"),
    Variant("default (int4 without loss, bfloat16 products)", torch.bfloat16),
    Variant("int8 weights", torch.bfloat16, Quantization.INT8),
    Variant("int4 weights alone", torch.bfloat16, Quantization.INT4),
    Variant("FP8 weights and activations (simulated)", torch.float32, Quantization.FP8),
    Variant("bfloat16 latents", latents=torch.bfloat16),
    Variant("FP8 latents", latents=torch.uint8),
    Variant("profile mla256", profile="mla256"),
    Variant("profile sparse", profile="sparse"),
]


def stretches(ids: Tensor, length: int, count: int) -> list[Tensor]:
    """`count` stretches of some length, evenly spread over the text. Raises ConfigError for a short text."""
    if len(ids) < length * count:
        raise ConfigError(f"the text has {len(ids)} tokens; {count} stretches of {length} need more")
    step = (len(ids) - length) // max(count - 1, 1)
    return [ids[index * step : index * step + length] for index in range(count)]


def table(parts: list[Tensor], delta: Path | None, word: str) -> None:
    """Print one row a variant as it is done; shorter lengths are the beginnings of the stretches."""
    lengths = [length for length in LENGTHS if length <= len(parts[0])]
    wanted = [each for each in VARIANTS if each is VARIANTS[0] or word in each.name]
    exact: list[Judged] = []
    print("| variant | " + " | ".join(f"{length:,}" for length in lengths) + " | KL at 512 | bytes a token |")
    print("|---" * (len(lengths) + 3) + "|")
    for variant in wanted:
        given = delta if variant.profile == "sparse" else None
        try:
            prepared = prepare_model(
                BUNDLED_MODEL, variant.profile, default_cache_dir(), StderrProgress(), given
            )
        except BackendError as error:
            print(f"| {variant.name} | {error} |" + " |" * (len(lengths) + 1))
            continue
        model = load_model(prepared.path, max(lengths), CPU, variant.dtype, quantization=variant.quantization)
        form = LatentFormat(variant.latents, torch.float32)
        found = [judge(model, part, form) for part in parts]
        exact = exact or found
        cells = [
            f"{math.exp(torch.cat([each.losses[: length - 1] for each in found]).mean()):.2f}"
            for length in lengths
        ]
        cells += [f"{divergence(exact, found):.4f}", f"{form.block_bytes(model.config, 1):,}"]
        print(f"| {variant.name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Measure what the options ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, nargs="+", help="another text: files in UTF-8")
    parser.add_argument(
        "--longest", type=int, choices=LENGTHS, default=max(LENGTHS), help="tokens of a stretch"
    )
    parser.add_argument("--stretches", type=positive, default=2, help="of the text (%(default)s)")
    parser.add_argument("--delta", type=Path, help="for the profile sparse")
    parser.add_argument("--only", default="", metavar="WORD", help="leave out variants without it")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = prepare_model(BUNDLED_MODEL, "exact", default_cache_dir(), StderrProgress()).path
    written = [path.read_text(encoding="utf-8") for path in options.text] if options.text else prose()
    text = "\n\n".join(written)
    ids = torch.tensor(Tokenizer(folder).encode(text))
    started = now()
    print(f"{len(ids):,} tokens, torch {torch.__version__}, {options.threads} threads")
    try:
        table(stretches(ids, options.longest, options.stretches), options.delta, options.only)
    except BackendError as error:
        parser.error(str(error))
    print(f"{now() - started:.0f} s")


if __name__ == "__main__":
    main()
