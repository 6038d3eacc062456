"""The command line: `serve` runs the model server, `prepare` only downloads and converts the model.

`profile` and `bench` measure them; their arguments are in `commands/`.

Exit codes: 0 fine, 2 a wrong argument or configuration, 1 anything else.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from local_backend.clock import now
from local_backend.commands import bench, distill, profile
from local_backend.commands.numbers import natural, positive, positive_number
from local_backend.commands.places import device
from local_backend.errors import BackendError
from local_backend.parent import exit_with_parent
from local_backend.serve.listen import bind
from local_backend.weights.paths import default_cache_dir
from local_backend.weights.progress import StderrProgress

_DEVICES = "auto, cpu, cuda, or cuda:N for one of several GPUs (%(default)s)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except BackendError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m local_backend", description="Tidegate's bundled model server."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    model = argparse.ArgumentParser(add_help=False)
    model.add_argument(
        "--model",
        default="smollm2-135m-moe",
        help="the bundled model's name, a dense Llama's .gguf, or a DeepSeek-V2 or V3 folder (%(default)s)",
    )
    model.add_argument(
        "--profile",
        default="exact",
        choices=["exact", "mla256", "sparse"],
        help="how it is converted: without loss, to a smaller cache, or to fewer experts (%(default)s)",
    )
    model.add_argument(
        "--delta", type=Path, metavar="FILE", help="what `distill` made, for --profile sparse (one ships)"
    )
    model.add_argument(
        "--cache-dir",
        type=Path,
        default=default_cache_dir(),
        help="where converted models are kept; TIDEGATE_CACHE sets it too (%(default)s)",
    )
    prepare = commands.add_parser(
        "prepare", parents=[model], help="download and convert the model, then exit"
    )
    prepare.set_defaults(run=_prepare)

    compute = argparse.ArgumentParser(add_help=False)
    compute.add_argument("--device", type=device, default="auto", help=_DEVICES)
    compute.add_argument(
        "--dtype",
        choices=["auto", "float32", "bfloat16"],
        default="auto",
        help="float32 is exact; bfloat16 is faster where the hardware has it, which is what auto looks for",
    )
    compute.add_argument(
        "--quantization",
        choices=["auto", "none", "int8", "int4", "fp8"],
        default="auto",
        help="round the weights; auto keeps an FP8 checkpoint in FP8 where the device multiplies it",
    )
    compute.add_argument("--threads", type=positive, help="CPU threads for the model (all cores but one)")
    for command, description in (
        (profile, "arithmetic, memory traffic, time and energy of a token"),
        (bench, "what clients see with 1, 8 and 32 answers at once"),
    ):
        name = command.__name__.rpartition(".")[2]
        measured = commands.add_parser(name, parents=[model, compute], help=description)
        command.add_arguments(measured)
        measured.set_defaults(run=command.run)

    distilling = commands.add_parser("distill", help="train a sparse form of the bundled model")
    distilling.add_argument("--cache-dir", type=Path, default=default_cache_dir())
    distilling.add_argument("--device", type=device, default="auto", help=_DEVICES)
    distilling.add_argument("--threads", type=positive, help="CPU threads (all cores but one)")
    distill.add_arguments(distilling)
    distilling.set_defaults(run=distill.run)

    serve = commands.add_parser("serve", parents=[model, compute], help="serve the model over HTTP")
    serve.set_defaults(run=_serve)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; there is no authentication")
    serve.add_argument("--port", type=int, default=8090, help="port to listen on (%(default)s)")
    serve.add_argument(
        "--max-concurrency", type=positive, default=8, help="answers generated at once (%(default)s)"
    )
    serve.add_argument(
        "--max-queue", type=natural, default=32, help="answers waiting beside them (%(default)s)"
    )
    serve.add_argument(
        "--max-length", type=positive, help="tokens of prompt and answer together (the model's own)"
    )
    serve.add_argument(
        "--extend",
        choices=["none", "yarn", "dual-chunk", "sliding"],
        default="none",
        help="how a --max-length beyond the model's own is reached; sliding, texts may be of any length",
    )
    serve.add_argument(
        "--window",
        type=positive,
        metavar="TOKENS",
        help="of a text that --extend sliding keeps: its first 64 and its last ones (the model's length)",
    )
    serve.add_argument(
        "--cache-memory",
        type=positive_number,
        default=1.0,
        help="GiB for the latents of open sequences and of prefixes to find again (%(default)s)",
    )
    serve.add_argument(
        "--cache-dtype",
        choices=["auto", "float32", "bfloat16", "fp8"],
        default="auto",
        help="how latents are kept: as they are computed, or smaller and rounded (%(default)s)",
    )
    serve.add_argument(
        "--default-max-tokens",
        type=positive,
        default=1024,
        help="of a chat that names no limit (%(default)s)",
    )
    serve.add_argument(
        "--drain", type=natural, default=30, help="seconds for open answers on SIGTERM (%(default)s)"
    )
    serve.add_argument(
        "--watts",
        type=positive_number,
        help="what a core, or a GPU, draws while it computes, to estimate the energy of answers where no "
        "counter can be read (10 a core, 500 a GPU)",
    )
    serve.add_argument("--parent-pid", type=positive, help="exit when this process, our parent, is gone")
    return parser


def _prepare(options: argparse.Namespace) -> int:
    # Imported here, as in _serve, so that a wrong argument is answered before torch is loaded.
    from local_backend.weights.prepare import prepare_model  # noqa: PLC0415

    folder = prepare_model(options.model, options.profile, options.cache_dir, StderrProgress(), options.delta)
    sys.stdout.write(f"{folder.path}\n")
    return 0


def _serve(options: argparse.Namespace) -> int:
    started = now()

    if options.parent_pid is not None:
        exit_with_parent(options.parent_pid)
    is_follower = int(os.environ.get("RANK", "0")) > 0
    sock = None if is_follower else bind(options.host, options.port)
    from local_backend.launch import ServeOptions, follow, serve  # noqa: PLC0415

    wanted = ServeOptions(
        model=options.model,
        profile=options.profile,
        delta=options.delta,
        cache_dir=options.cache_dir,
        device=options.device,
        dtype=options.dtype,
        quantization=options.quantization,
        threads=options.threads,
        max_concurrency=options.max_concurrency,
        max_queue=options.max_queue,
        max_length=options.max_length,
        extend=options.extend,
        window=options.window,
        cache_memory=options.cache_memory,
        cache_dtype=options.cache_dtype,
        default_max_tokens=options.default_max_tokens,
        drain=options.drain,
        watts=options.watts,
        started=started,
    )
    if sock is None:
        follow(wanted)
        return 0
    with sock:
        serve(wanted, sock)
    return 0
