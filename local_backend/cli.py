"""The command line: `serve` runs the model server, `prepare` only downloads and converts the model.

Exit codes: 0 fine, 2 a wrong argument or configuration, 1 anything else.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from math import inf
from pathlib import Path

from local_backend.clock import now
from local_backend.errors import BackendError
from local_backend.parent import exit_with_parent
from local_backend.serve.listen import bind
from local_backend.weights.paths import default_cache_dir
from local_backend.weights.progress import StderrProgress


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "prepare":
            return _prepare(options)
        return _serve(options)
    except BackendError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m local_backend", description="Tidegate's bundled model server."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    model = argparse.ArgumentParser(add_help=False)
    model.add_argument(
        "--model",
        default="smollm2-135m-moe",
        help="the bundled model's name, a dense Llama's .gguf file, or a DeepSeek-V3 folder (%(default)s)",
    )
    model.add_argument(
        "--profile", default="exact", choices=["exact"], help="how it is converted (%(default)s)"
    )
    model.add_argument(
        "--cache-dir",
        type=Path,
        default=default_cache_dir(),
        help="where converted models are kept; TIDEGATE_CACHE sets it too (%(default)s)",
    )
    commands.add_parser("prepare", parents=[model], help="download and convert the model, then exit")

    serve = commands.add_parser("serve", parents=[model], help="serve the model over HTTP")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; there is no authentication")
    serve.add_argument("--port", type=int, default=8090, help="port to listen on (%(default)s)")
    serve.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    serve.add_argument(
        "--dtype",
        choices=["auto", "float32", "bfloat16"],
        default="auto",
        help="float32 is exact; bfloat16 is faster where the hardware has it, which is what auto looks for",
    )
    serve.add_argument(
        "--quantization",
        choices=["auto", "none", "int8", "int4", "fp8"],
        default="auto",
        help="round the weights; auto keeps an FP8 checkpoint in FP8 where the device multiplies it",
    )
    serve.add_argument("--threads", type=_positive, help="CPU threads for the model (all cores but one)")
    serve.add_argument(
        "--max-concurrency", type=_positive, default=8, help="answers generated at once (%(default)s)"
    )
    serve.add_argument(
        "--max-queue", type=_natural, default=32, help="answers waiting beside them (%(default)s)"
    )
    serve.add_argument(
        "--max-length", type=_positive, help="tokens of prompt and answer together (the model's own)"
    )
    serve.add_argument(
        "--extend",
        choices=["none", "yarn", "dual-chunk"],
        default="none",
        help="how a --max-length beyond the model's own is reached",
    )
    serve.add_argument(
        "--cache-memory",
        type=_positive_number,
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
        type=_positive,
        default=1024,
        help="of a chat that names no limit (%(default)s)",
    )
    serve.add_argument(
        "--drain", type=_natural, default=30, help="seconds for open answers on SIGTERM (%(default)s)"
    )
    serve.add_argument("--parent-pid", type=_positive, help="exit when this process, our parent, is gone")
    return parser


def _prepare(options: argparse.Namespace) -> int:
    # Imported here, as in _serve, so that a wrong argument is answered before torch is loaded.
    from local_backend.weights.prepare import prepare_model  # noqa: PLC0415

    folder = prepare_model(options.model, options.profile, options.cache_dir, StderrProgress())
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
        cache_dir=options.cache_dir,
        device=options.device,
        dtype=options.dtype,
        quantization=options.quantization,
        threads=options.threads,
        max_concurrency=options.max_concurrency,
        max_queue=options.max_queue,
        max_length=options.max_length,
        extend=options.extend,
        cache_memory=options.cache_memory,
        cache_dtype=options.cache_dtype,
        default_max_tokens=options.default_max_tokens,
        drain=options.drain,
        started=started,
    )
    if sock is None:
        follow(wanted)
        return 0
    with sock:
        serve(wanted, sock)
    return 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a positive number")
    return value


def _positive_number(text: str) -> float:
    value = float(text)
    if not 0 < value < inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is negative")
    return value
