"""Draws docs/img/policies/cache.svg: hit rates of the three policies, as the gateway runs them.

Run: PYTHONPATH=. python docs/plots/cache.py. Prints the figures of the page too.
"""

# ruff: noqa: INP001, T201 - a script
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import accumulate
from random import Random

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "tidegate"
from matplotlib import pyplot as plt  # noqa: E402 - the backend comes first

from gateway.cache.codec import Kept  # noqa: E402
from gateway.cache.memory import Policy, byte_cache, size_of  # noqa: E402
from policies.cache.answer import CachedAnswer  # noqa: E402

KEYS, ROOM, REQUESTS = 50_000, 1_000, 200_000
BODY = bytes(424)
"""With its overhead an answer takes exactly 1 KiB, so that the room is for a thousand of them."""
POLICIES: tuple[Policy, ...] = ("lru", "lfu", "w-tinylfu")
NAMES = [sha256(str(number).encode()).hexdigest() for number in range(KEYS + REQUESTS)]


def zipf(rng: Random, exponent: float = 0.9) -> Iterator[int]:
    """Keys whose popularity falls with their rank."""
    weights = list(accumulate((rank + 1) ** -exponent for rank in range(KEYS)))
    yield from rng.choices(range(KEYS), cum_weights=weights, k=REQUESTS)


def drift(rng: Random, every: int = 200) -> Iterator[int]:
    """The same, while what is popular moves on by one key every 200 requests."""
    for number, rank in enumerate(zipf(rng)):
        yield (rank + number // every) % KEYS


def fast_drift(rng: Random) -> Iterator[int]:
    """Ten times as fast: what is popular is another key every 20 requests."""
    yield from drift(rng, every=20)


def loop(rng: Random) -> Iterator[int]:  # noqa: ARG001 - all traces are drawn alike
    """The same 1,500 keys round and round: one and a half times what fits."""
    yield from (number % 1500 for number in range(REQUESTS))


def one_hit(rng: Random) -> Iterator[int]:
    """Half of the requests are for keys that nobody asks for twice."""
    for number, rank in enumerate(zipf(rng)):
        yield KEYS + number if number % 2 else rank


TRACES: dict[str, Callable[[Random], Iterator[int]]] = {
    "Zipf 0.9": zipf,
    "drift": drift,
    "fast drift": fast_drift,
    "loop": loop,
    "one-hit": one_hit,
}


def hit_rate(policy: Policy, trace: Iterator[int]) -> float:
    """The share of a trace's second half that was there, so that a cold start doesn't count."""
    cache = byte_cache(policy, ROOM * 1024, lambda _: None)
    hits = 0
    for number, key in enumerate(trace):
        name = NAMES[key]
        if cache.get(name) is not None:
            hits += number >= REQUESTS // 2
        else:
            kept = Kept(CachedAnswer(name, "=t", "m", "up", "m", 0.0, BODY), 1.0)
            cache.set(name, kept, size_of(kept))
    return hits / (REQUESTS // 2)


def main() -> None:
    """Measure, print and draw."""
    rates = {
        policy: [hit_rate(policy, trace(Random(7))) for trace in TRACES.values()]  # noqa: S311 - a trace
        for policy in POLICIES
    }
    print("| trace |", " | ".join(POLICIES), "|")
    for at, name in enumerate(TRACES):
        print(f"| {name} |", " | ".join(f"{rates[policy][at]:.3f}" for policy in POLICIES), "|")
    figure, axes = plt.subplots(figsize=(8, 3.4))
    width = 0.27
    for number, policy in enumerate(POLICIES):
        places = [at + (number - 1) * width for at in range(len(TRACES))]
        axes.bar(places, rates[policy], width * 0.92, label=policy)
    axes.set(xticks=range(len(TRACES)), xticklabels=list(TRACES), ylabel="hit rate", ylim=(0, 0.8))
    axes.set_title("Room for 1,000 of 50,000 answers")
    axes.legend()
    figure.tight_layout()
    figure.savefig("docs/img/policies/cache.svg", metadata={"Date": None})


main()
