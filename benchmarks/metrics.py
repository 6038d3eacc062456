"""What counting a call costs in CPU time, with one worker and with several.

    python benchmarks/metrics.py

The facts of one streamed call with limits, told to the metrics as the layers tell them, and written out
after each thousand. The least of several repetitions counts, since everything else on the machine can
only add to it.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests.kit

from gateway.metrics import Metrics
from gateway.metrics.series import flush
from policies.facts import AttemptFinished, CallFinished, CallStarted, Fact, ReservationSettled
from policies.service import Attempt, Usage
from tests.kit.upstream import make_call

CALLS, REPETITIONS = 1000, 20
MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"


def facts() -> list[Fact]:
    """What is told of a call that one upstream answers."""
    call = make_call(route="chat", model="m", tier="pro", stream=True)
    attempt = Attempt("up", "m", "ok", 2.0, 0.4)
    call.attempts.append(attempt)
    usage = Usage(400, 120)
    return [
        CallStarted(call),
        AttemptFinished(call, attempt),
        ReservationSettled(call, Usage(400, 300), usage),
        CallFinished(call, "ok", 2.0, 0.5, usage, "up", "m"),
    ]


def seconds(metrics: Metrics) -> float:
    """CPU time of one call."""
    told = facts()
    best = float("inf")
    for _ in range(REPETITIONS):
        began = time.process_time()
        for _ in range(CALLS):
            for fact in told:
                metrics.emit(fact)
        flush()
        best = min(best, (time.process_time() - began) / CALLS)
    return best


def main() -> None:
    """Measure in this process or, for several workers, in one whose values live in files."""
    if MULTIPROCESS in os.environ:
        print(f"several workers: {seconds(Metrics()) * 1e6:.1f} us a call")
        return
    print(f"one worker: {seconds(Metrics()) * 1e6:.1f} us a call", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        os.spawnve(
            os.P_WAIT, sys.executable, [sys.executable, __file__], {**os.environ, MULTIPROCESS: folder}
        )


if __name__ == "__main__":
    main()
