"""`distill`: trains a sparse form of the bundled model on the exact one's answers; CPU or GPU, no network."""

import argparse
import sys
from pathlib import Path

from local_backend.commands.numbers import natural, positive, positive_number
from local_backend.commands.places import output_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Beside --cache-dir, --device and --threads."""
    parser.add_argument(
        "--out", type=output_folder, required=True, help="folder to work in; run again to go on there"
    )
    parser.add_argument(
        "--steps",
        type=natural,
        default=4000,
        help="of the whole training, 0 for calibration alone (%(default)s)",
    )
    parser.add_argument("--minutes", type=positive_number, help="stop after so long; run again to go on")
    parser.add_argument("--batch", type=positive, default=1, help="texts of 512 tokens a step (%(default)s)")
    parser.add_argument(
        "--rate", type=positive_number, default=1e-2, help="of learning, to what is trained (%(default)s)"
    )
    parser.add_argument("--seed", type=natural, default=0)
    parser.add_argument("--text", type=Path, nargs="+", default=[], help="more text, UTF-8, to learn from")
    parser.add_argument("--top-k", type=positive, default=6, help="routed experts of 8 (%(default)s)")
    parser.add_argument(
        "--latent-rank", type=positive, help="of MLA's latent; attention stays as it is without"
    )
    parser.add_argument(
        "--rope-pairs",
        type=positive,
        default=48,
        help="with --latent-rank: key pairs that keep RoPE, up to 96",
    )


def run(options: argparse.Namespace) -> int:
    """Train, measure, write the delta."""
    import torch  # noqa: PLC0415 - takes seconds, so after the arguments

    from local_backend.compress.student import LatentShape, Shape  # noqa: PLC0415
    from local_backend.distill.delta import MAX_DIVERGENCE  # noqa: PLC0415
    from local_backend.distill.run import DELTA, Distillation, DistillOptions  # noqa: PLC0415
    from local_backend.distill.training import TrainingOptions  # noqa: PLC0415
    from local_backend.launch import choose_device, default_threads  # noqa: PLC0415
    from local_backend.weights.prepare import BUNDLED_MODEL, prepare_model  # noqa: PLC0415
    from local_backend.weights.progress import StderrProgress  # noqa: PLC0415

    progress = StderrProgress()
    exact = prepare_model(BUNDLED_MODEL, "exact", options.cache_dir, progress).path
    torch.set_num_threads(options.threads or default_threads())
    latent = LatentShape(options.rope_pairs, options.latent_rank) if options.latent_rank else None
    wanted = DistillOptions(
        shape=Shape(latent, options.top_k),
        training=TrainingOptions(
            steps=options.steps, batch=options.batch, rate=options.rate, seed=options.seed
        ),
        texts=options.text,
        minutes=options.minutes,
    )
    distillation = Distillation(exact, options.out, choose_device(options.device), wanted, progress)
    distillation.train()
    delta = distillation.finish()
    verdict = "passed" if delta.has_passed else "did not pass"
    sys.stdout.write(
        f"{options.out / DELTA}: KL {delta.kl:.4f} after {delta.steps} steps, {verdict} its gate of "
        f"{MAX_DIVERGENCE}\n"
    )
    return 0
