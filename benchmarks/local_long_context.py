"""Perplexity along one long text, beyond the length that the model was trained on, by the way it gets there.

    python benchmarks/local_long_context.py --threads 1 --json curve.json --picture docs/img/long_context.svg
    python benchmarks/local_long_context.py --tokens 4096 --trained 2048      # as if trained on less

The text is the prose of Python's own language reference (pydoc_data, PSF licence), which every CPython has.
All ways go through it side by side, 512 tokens at a time, and --json keeps what is known after each: what a
file has already is not computed again, and an interrupted run can still be drawn.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from local_backend.clock import now
from local_backend.compress.corpus import prose
from local_backend.engine.blocks import BlockPool
from local_backend.engine.latents import LatentFormat, LatentPool
from local_backend.engine.request import Sequence
from local_backend.engine.runner import extent_of
from local_backend.engine.tables import Tables
from local_backend.lengths import BLOCK_SIZE, Lengths
from local_backend.measure.picture import require_matplotlib
from local_backend.model.long_context import Extension
from local_backend.model.model import DeepseekV3
from local_backend.model.rope import RotaryEmbedding
from local_backend.serve.tokenizer import Tokenizer
from local_backend.weights.deepseek_io import CONFIG, read_json
from local_backend.weights.load import load_config, load_model
from local_backend.weights.paths import default_cache_dir
from local_backend.weights.prepare import BUNDLED_MODEL, prepare_model
from local_backend.weights.progress import StderrProgress

CPU = torch.device("cpu")
CHUNK = 512
FORM = LatentFormat(torch.bfloat16, torch.float32)
NAMES = {
    Extension.NONE: "no extension",
    Extension.YARN: "YaRN",
    Extension.DUAL_CHUNK: "dual chunk",
    Extension.SLIDING: "sliding window",
}
Curves = dict[str, list[float]]
"""The loss of every token but the first, by the way's name."""


def main() -> None:
    """Measure what is missing, then print and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument(
        "--trained", type=int, default=8192, help="pretend that the model was trained so far (%(default)s)"
    )
    parser.add_argument("--ways", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--step", type=int, default=1024, help="tokens of one printed figure (%(default)s)")
    parser.add_argument("--json", type=Path, help="keeps the losses")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.picture:
        require_matplotlib()
    torch.set_num_threads(options.threads)
    curves: Curves = {}
    if options.json and options.json.exists():
        curves = json.loads(options.json.read_text(encoding="utf-8"))
    missing = [way for way in options.ways if len(curves.get(NAMES[Extension(way)], ())) < options.tokens - 1]
    started = now()
    if missing:
        measure(missing, options, curves)
    print(f"perplexity between positions, torch {torch.__version__}, {now() - started:.0f} s")
    show(curves, options.step)
    if options.picture:
        draw(curves, options)


def measure(ways: list[str], options: argparse.Namespace, curves: Curves) -> None:
    """Take all `ways` through the text side by side, into `curves`."""
    folder = prepare_model(BUNDLED_MODEL, "exact", default_cache_dir(), StderrProgress()).path
    ids = torch.tensor(Tokenizer(folder).encode("\n\n".join(prose())))[: options.tokens]
    with tempfile.TemporaryDirectory() as pretended:
        given = trained_at(folder, Path(pretended), options.trained)
        runs = {}
        for way in map(Extension, ways):
            lengths = Lengths.of(way, options.trained, len(ids), None)
            runs[NAMES[way]] = losses(load(given, way, lengths), lengths, ids)
        curves |= {name: [] for name in runs}
        # A run's generator has loaded its model before the folder goes.
        for pieces in zip(*runs.values(), strict=True):
            for name, piece in zip(runs, pieces, strict=True):
                curves[name] += piece
            if options.json:
                options.json.write_text(json.dumps(curves), encoding="utf-8")


def trained_at(folder: Path, target: Path, length: int) -> Path:
    """The same model, whose config says that it was trained on texts of `length` tokens."""
    for path in folder.iterdir():
        (target / path.name).symlink_to(path)
    (target / CONFIG).unlink()
    config = read_json(folder / CONFIG) | {"max_position_embeddings": length}
    config["rope_parameters"] |= {"original_max_position_embeddings": length}
    (target / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    return target


def load(folder: Path, way: Extension, lengths: Lengths) -> DeepseekV3:
    """The model for texts of that length; without an extension its own rotations are simply continued."""
    config = load_config(folder)
    if way is not Extension.NONE:
        return load_model(folder, lengths.kept, CPU, torch.bfloat16, extension=way)
    model = load_model(folder, config.max_position_embeddings, CPU, torch.bfloat16)
    model.rotary = RotaryEmbedding(config.rope, config.qk_rope_head_dim, lengths.kept, CPU)
    return model


@torch.inference_mode()
def losses(model: DeepseekV3, lengths: Lengths, ids: Tensor) -> Iterator[list[float]]:
    """The negative log-probability of each token but the first, a chunk at a time."""
    count = -(-lengths.kept // BLOCK_SIZE)
    latents = LatentPool(model.config, count, BLOCK_SIZE, CPU, FORM)
    tables = Tables(BlockPool(count, BLOCK_SIZE), lengths.window(CHUNK), share_answers=False)
    text = Sequence(0, tuple(ids.tolist()), None)
    for start in range(0, len(ids) - 1, CHUNK):
        end = min(start + CHUNK, len(ids) - 1)
        tables.extend(text, end)
        extent = extent_of(text, start, end, BLOCK_SIZE)
        positions = torch.arange(extent.start, extent.end)[None]
        hidden = model(ids[None, start:end], positions, latents.view([extent]))
        tables.advance(text, end)
        logits = model.logits(hidden[0])
        yield functional.cross_entropy(logits, ids[start + 1 : end + 1], reduction="none").tolist()


def points(curve: list[float], step: int) -> list[tuple[int, float]]:
    """Perplexities of stretches of `step` tokens, each with the position where it ends."""
    ends = range(step, len(curve) + 2, step)
    return [(end, math.exp(sum(part) / len(part))) for end in ends if (part := curve[end - step : end])]


def show(curves: Curves, step: int) -> None:
    """Print a table with a column a way."""
    print("| positions up to | " + " | ".join(curves) + " |")
    print("|---" * (len(curves) + 1) + "|")
    columns = [dict(points(curve, step)) for curve in curves.values()]
    for end in columns[0]:
        cells = [f"{column[end]:.2f}" if end in column else "" for column in columns]
        print(f"| {end:,} | " + " | ".join(cells) + " |")


def draw(curves: Curves, options: argparse.Namespace) -> None:
    """Draw the curves, and where the model's training ended."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - after matplotlib is known to be there
    from matplotlib.ticker import LogLocator  # noqa: PLC0415

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axis = figure.subplots()
    for name, curve in curves.items():
        axis.plot(*zip(*points(curve, options.step), strict=True), label=name, marker="o", markersize=3)
    axis.axvline(options.trained, color="grey", linestyle=":", linewidth=1)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    axis.yaxis.set_minor_formatter("{x:g}")
    axis.set_xlabel("position in the text, tokens")
    axis.set_ylabel(f"perplexity of {options.step:,} tokens")
    axis.legend(fontsize=8)
    figure.savefig(options.picture, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
