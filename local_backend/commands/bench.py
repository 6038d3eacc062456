"""`bench`: what clients of the server see with 1, 8 and 32 answers at once."""

import argparse
import asyncio
import json
import sys
from contextlib import nullcontext

from local_backend.commands.numbers import positive
from local_backend.commands.places import output_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Beside those that name a model and how it computes."""
    parser.add_argument("--url", help="a running server's base URL, .../v1; else one is started")
    parser.add_argument(
        "--batches", type=positive, nargs="+", default=[1, 8, 32], help="answers at once (1 8 32)"
    )
    parser.add_argument("--tokens", type=positive, default=64, help="of each answer (%(default)s)")
    parser.add_argument("--rounds", type=positive, default=3, help="of each batch (%(default)s)")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--picture", type=output_file, metavar="FILE.svg", help="draw them; needs matplotlib")


def run(options: argparse.Namespace) -> int:
    """Measure and print."""
    from local_backend.measure.http_load import measure  # noqa: PLC0415 - the arguments come first
    from local_backend.measure.own_server import own_server  # noqa: PLC0415
    from local_backend.measure.picture import draw, require_matplotlib  # noqa: PLC0415

    if options.picture:
        require_matplotlib()
    with nullcontext(options.url) if options.url else own_server(_arguments(options)) as url:
        levels = asyncio.run(measure(url, options.batches, options.tokens, options.rounds))
    title = f"{options.url or options.model}, {options.tokens} tokens an answer"
    lines = [
        title,
        "answers  TTFT ms: median     p95   ITL ms: median     p95   tokens/s",
        *(
            f"{each.batch:7d}  {each.ttft_median:15.0f} {each.ttft_p95:7.0f}  {each.itl_median:14.1f} "
            f"{each.itl_p95:7.1f}  {each.tokens_per_second:9.1f}"
            for each in levels
        ),
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    if options.json:
        found = {"title": title, "levels": [each.as_json() for each in levels]}
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if options.picture:
        draw(levels, title, options.picture)
    return 0


def _arguments(options: argparse.Namespace) -> list[str]:
    arguments = ["--model", options.model, "--profile", options.profile]
    arguments += ["--device", options.device, "--dtype", options.dtype]
    arguments += ["--quantization", options.quantization, "--cache-dir", str(options.cache_dir)]
    if options.delta:
        arguments += ["--delta", str(options.delta)]
    if options.threads:
        arguments += ["--threads", str(options.threads)]
    return [*arguments, "--max-concurrency", str(max(options.batches))]
