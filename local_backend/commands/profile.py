"""`profile`: where a token's arithmetic, memory traffic, time and energy go."""

import argparse
import json
import sys

from local_backend.commands.numbers import positive
from local_backend.commands.places import output_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Beside those that name a model and how it computes."""
    parser.add_argument(
        "--context", type=positive, default=512, help="positions that attention sees (%(default)s)"
    )
    parser.add_argument("--batch", type=positive, default=1, help="rows of a decoding pass (%(default)s)")
    parser.add_argument("--repeat", type=positive, default=20, help="passes measured (%(default)s)")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write everything there, too")


def run(options: argparse.Namespace) -> int:
    """Measure and print."""
    from local_backend.engine.latents import LatentFormat  # noqa: PLC0415 - torch takes seconds
    from local_backend.measure.report import profile_model  # noqa: PLC0415
    from local_backend.measure.subject import load_subject  # noqa: PLC0415
    from local_backend.measure.timing import Passes  # noqa: PLC0415
    from local_backend.weights.load import activation_dtype  # noqa: PLC0415

    subject = load_subject(options, options.context)
    activations = activation_dtype(subject.device, subject.dtype)
    form = LatentFormat(activations, activations)
    passes = Passes(subject.model, form, options.batch, options.context)
    found = profile_model(subject.name, subject.model, form, passes, options.repeat)
    sys.stdout.write(found.as_text())
    if options.json:
        options.json.write_text(json.dumps(found.as_json(), indent=1), encoding="utf-8")
    return 0
