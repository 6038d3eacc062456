"""Answers given wrongly and rightly by the semantic cache, on the labelled pairs in tests/data.

Run: PYTHONPATH=. python benchmarks/semantic_cache.py. Prints the tables of docs/policies/semantic-cache.md
and draws docs/img/policies/semantic-cache.svg; --quiet draws nothing. The guards and the policy were made
with the pairs of "tuned" in view; nothing was chosen by those "held out".

The first prompt of each group is stored, the others are looked up among all that are stored, through the
guards and the policy as the gateway runs them. Each pass asks all of them in a new order, and all passes are
done several times over. An answer is right where the pair is labelled so, which is known here and needn't
be judged.
"""

import argparse
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from threadpoolctl import threadpool_limits

from gateway.cache.semantic.minilm import MiniLm, folder
from policies.cache.semantic_budget import RiskBudget
from policies.cache.semantic_fit import Fit, Pool, SemanticOptions
from policies.cache.semantic_guards import conflict, read

ROOT = Path(__file__).parents[1]
TUNED = ROOT / "tests/data/semantic_pairs.jsonl"
HELD_OUT = ROOT / "tests/data/semantic_pairs_held_out.jsonl"
PICTURE = ROOT / "docs/img/policies/semantic-cache.svg"
DELTAS = (0.01, 0.02, 0.05, 0.1)
PASSES = 20
ORDERS = range(5)
_BATCH = 32
_Z = 1.96


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt looked up: its category, the nearest stored one, and whether that one's answer is right."""

    category: str
    stored: str
    similarity: float
    right: bool
    blocked: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was given of ``asked`` calls, of which ``same`` had their answer stored."""

    asked: int
    same: int
    given: int
    wrong: int

    @property
    def error(self) -> float:
        """Calls that got a wrong answer."""
        return self.wrong / self.asked

    @property
    def bound(self) -> float:
        """The upper end of the error's interval at 95%, after Wilson."""
        rate, spread = self.error, _Z * _Z / self.asked
        root = _Z * math.sqrt(rate * (1 - rate) / self.asked + spread / (4 * self.asked))
        return (rate + spread / 2 + root) / (1 + spread)

    @property
    def precision(self) -> float:
        """Answers given that were right."""
        return 1 - self.wrong / self.given if self.given else 1.0

    @property
    def recall(self) -> float:
        """Calls that were rightly given an answer, of those that could have been."""
        return (self.given - self.wrong) / self.same

    def __add__(self, other: "Outcome") -> "Outcome":
        return Outcome(
            self.asked + other.asked,
            self.same + other.same,
            self.given + other.given,
            self.wrong + other.wrong,
        )


class PerCall:
    """vCache's own rule: each call risks ``delta`` by itself, so a share of them gets a doubtful answer."""

    def __init__(self, options: SemanticOptions) -> None:
        self._delta = options.delta
        self._rng = Random(3)

    def allows(self, risk: float) -> bool:
        return self._rng.random() * risk < self._delta

    def found_wrong(self) -> None:
        """It hasn't foreseen that."""


def looked_up(file: Path) -> list[Asked]:
    """The second prompts of a file's pairs, looked up among its first ones."""
    pairs = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    stored = list(dict.fromkeys(pair["prompt"] for pair in pairs))
    model = MiniLm(folder())
    similarities = vectors(model, [pair["other"] for pair in pairs]) @ vectors(model, stored).T
    return [_asked(pair, stored, row) for pair, row in zip(pairs, similarities, strict=True)]


def _asked(pair: dict[str, str], stored: Sequence[str], similarities: np.ndarray) -> Asked:
    """Of the four nearest the first that no guard refuses, as in the gateway."""
    reading = read(pair["other"])
    nearest = [int(at) for at in np.argsort(-similarities)[:4]]
    open_to = [at for at in nearest if conflict(reading, read(stored[at])) is None]
    at = open_to[0] if open_to else nearest[0]
    right = bool(pair["same"]) and stored[at] == pair["prompt"]
    return Asked(pair["category"], stored[at], float(similarities[at]), right, blocked=not open_to)


def vectors(model: MiniLm, texts: Sequence[str]) -> np.ndarray:
    """The texts' vectors, computed on one core as in the gateway."""
    with threadpool_limits(limits=1, user_api="blas"):
        batches = [model.embed(texts[at : at + _BATCH]) for at in range(0, len(texts), _BATCH)]
    return np.stack([vector for batch in batches for vector in batch if vector is not None])


def replay(
    asked: Sequence[Asked],
    options: SemanticOptions,
    passes: int,
    seed: int,
    rule: type[RiskBudget | PerCall] = RiskBudget,
) -> Iterator[Outcome]:
    """The policy over ``passes`` of all calls, in the orders of ``seed``; what came of them after each."""
    rng, pool, budget = Random(seed), Pool(), rule(options)
    fits = {each.stored: Fit(pool) for each in asked}
    total = given = wrong = 0
    same = sum(each.category == "paraphrase" for each in asked)
    for number in range(1, passes + 1):
        for each in rng.sample(asked, len(asked)):
            total += 1
            if each.blocked or each.similarity < options.similar:
                continue
            fit = fits[each.stored]
            is_given = budget.allows(fit.risk(each.similarity))
            if not is_given or rng.random() < options.verify:
                fit.observe(each.similarity, same=each.right)
                if is_given and not each.right:
                    budget.found_wrong()
            given += is_given
            wrong += is_given and not each.right
        yield Outcome(total, same * number, given, wrong)


def threshold(asked: Sequence[Asked], least: float, *, guarded: bool) -> Outcome:
    """What a fixed threshold gives."""
    given = [each for each in asked if each.similarity >= least and not (guarded and each.blocked)]
    same = sum(each.category == "paraphrase" for each in asked)
    return Outcome(len(asked), same, len(given), sum(not each.right for each in given))


def draw(asked: Sequence[Asked], replays: dict[float, list[Outcome]]) -> None:
    """Errors and recall as calls come in, and where the categories lie."""
    import matplotlib as mpl  # noqa: PLC0415 - of the group bench

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "tidegate"
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    categories = list(dict.fromkeys(each.category for each in asked))
    left.boxplot(
        [[each.similarity for each in asked if each.category == name] for name in categories],
        tick_labels=categories,
        orientation="horizontal",
    )
    left.set(title="Similarity to the nearest stored prompt", xlabel="cosine")
    for delta, outcomes in replays.items():
        (line,) = middle.plot([each.asked for each in outcomes], [100 * each.error for each in outcomes])
        middle.axhline(100 * delta, color=line.get_color(), linestyle=":", linewidth=1)
        recalls = [100 * each.recall for each in outcomes]
        right.plot([each.asked for each in outcomes], recalls, label=f"{delta:.0%}")
    middle.set(title="Calls answered wrongly (dotted: delta)", xlabel="calls", ylabel="%")
    right.set(title="Recall by delta", xlabel="calls", ylabel="%")
    right.legend()
    figure.savefig(PICTURE, metadata={"Date": None})


def row(name: str, outcomes: Sequence[Outcome]) -> str:
    """A line of the table: all orders together, and the worst one."""
    whole = sum(outcomes[1:], outcomes[0])
    return (
        f"| {name} | {whole.given / whole.asked:.1%} | {whole.precision:.1%} | {whole.recall:.1%} "
        f"| {whole.error:.2%} | {max(each.error for each in outcomes):.2%} |"
    )


def report(name: str, asked: Sequence[Asked]) -> dict[float, list[Outcome]]:
    """Print the tables of a set; what the policy gave in all orders together, by delta, after each pass."""
    print(f"\n{name}: {len(asked)} pairs\n\n| category | pairs | refused by guards | similarity, median |")
    print("|---|---|---|---|")
    for category, count in Counter(each.category for each in asked).items():
        of_it = [each for each in asked if each.category == category]
        middle = sorted(each.similarity for each in of_it)[count // 2]
        print(f"| {category} | {count} | {sum(each.blocked for each in of_it)} | {middle:.2f} |")
    print("\n| policy | answered | precision | recall | wrong, of all calls | in the worst order |")
    print("|---|---|---|---|---|---|")
    for least in (0.9, 0.95):
        print(row(f"{least:.2f}", [threshold(asked, least, guarded=False)]))
        print(row(f"{least:.2f} and guards", [threshold(asked, least, guarded=True)]))
    curves = {}
    for delta in DELTAS:
        replays = [list(replay(asked, SemanticOptions(delta), PASSES, order)) for order in ORDERS]
        print(row(f"delta {delta:.0%}, {PASSES} passes", [outcomes[-1] for outcomes in replays]))
        print(row(f"delta {delta:.0%}, the first pass", [outcomes[0] for outcomes in replays]))
        per_call = [list(replay(asked, SemanticOptions(delta), PASSES, order, PerCall)) for order in ORDERS]
        print(
            row(f"delta {delta:.0%} of each call, {PASSES} passes", [outcomes[-1] for outcomes in per_call])
        )
        curves[delta] = [sum(each[1:], each[0]) for each in zip(*replays, strict=True)]
    return curves


def main() -> None:
    """Print and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quiet", action="store_true", help="draw nothing")
    arguments = parser.parse_args()
    report("tuned", looked_up(TUNED))
    held_out = looked_up(HELD_OUT)
    replays = report("held out", held_out)
    if not arguments.quiet:
        draw(held_out, replays)


if __name__ == "__main__":
    main()
