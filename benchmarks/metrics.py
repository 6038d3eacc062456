"""What counting a call costs in CPU time, with one worker and with several.

    python benchmarks/metrics.py

The facts of one streamed call with limits, told as the layers tell them to the live page's journal and by
it to the metrics, and written out after each thousand. The least of several repetitions counts, since
everything else on the machine can only add to it.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests.kit

from gateway.clock import wall_time
from gateway.dashboard.journal import Journal
from gateway.metrics import Metrics
from gateway.metrics.series import flush
from policies.facts import AttemptFinished, CallFinished, CallStarted, Fact, ReservationSettled
from policies.ports import Meter
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


def least(meter: Meter) -> float:
    """CPU microseconds of one call."""
    told = facts()
    best = float("inf")
    for _ in range(REPETITIONS):
        began = time.process_time()
        for _ in range(CALLS):
            for fact in told:
                meter.emit(fact)
        flush()
        best = min(best, (time.process_time() - began) / CALLS * 1e6)
    return best


def main() -> None:
    """Measure in this process or, for several workers, in one whose values live in files."""
    several = MULTIPROCESS in os.environ
    metrics = Metrics()
    alone, both = least(metrics), least(Journal(metrics, wall_time))
    workers = "several workers" if several else "one worker"
    print(f"{workers}: metrics {alone:.1f} us a call, with the live page's journal {both:.1f}", flush=True)
    if not several:
        with tempfile.TemporaryDirectory() as folder:
            environ = {**os.environ, MULTIPROCESS: folder}
            os.spawnve(os.P_WAIT, sys.executable, [sys.executable, __file__], environ)


if __name__ == "__main__":
    main()
