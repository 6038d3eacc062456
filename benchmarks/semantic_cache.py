"""Answers given wrongly and rightly by the semantic cache, on the pairs in tests/data/semantic_pairs.jsonl.

Run: PYTHONPATH=. python benchmarks/semantic_cache.py. Prints the tables of docs/policies/semantic-cache.md
and draws docs/img/policies/semantic-cache.svg; --quiet draws nothing.

The first prompt of each group is stored, the others are looked up among all that are stored, through the
guards and the policy as the gateway runs them. Each pass asks all of them in a new order. An answer is right
where the pair is labelled so, which is known here and needn't be judged.
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

from gateway.cache.semantic.minilm import MiniLm, folder
from policies.cache.semantic_fit import Fit, Pool, SemanticOptions
from policies.cache.semantic_guards import conflict, read

ROOT = Path(__file__).parents[1]
PAIRS = ROOT / "tests/data/semantic_pairs.jsonl"
PICTURE = ROOT / "docs/img/policies/semantic-cache.svg"
DELTAS = (0.01, 0.02, 0.05, 0.1)
PASSES = 20
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


def looked_up() -> list[Asked]:
    """All pairs' second prompts, looked up."""
    pairs = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]
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
    """The texts' vectors."""
    batches = (model.embed(texts[at : at + _BATCH]) for at in range(0, len(texts), _BATCH))
    return np.stack([vector for batch in batches for vector in batch if vector is not None])


def replay(asked: Sequence[Asked], options: SemanticOptions, passes: int, seed: int = 7) -> Iterator[Outcome]:
    """The policy over ``passes`` of all calls; what came of them after each."""
    rng, pool = Random(seed), Pool()
    fits = {each.stored: Fit(pool) for each in asked}
    total = given = wrong = 0
    same = sum(each.category == "paraphrase" for each in asked)
    for number in range(1, passes + 1):
        for each in rng.sample(asked, len(asked)):
            total += 1
            if each.blocked or each.similarity < options.similar:
                continue
            fit = fits[each.stored]
            explored = rng.random() < fit.explores(each.similarity, options.delta)
            if explored or rng.random() < options.verify:
                fit.observe(each.similarity, same=each.right)
            given += not explored
            wrong += not explored and not each.right
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


def row(name: str, outcome: Outcome) -> str:
    """A line of the table."""
    return (
        f"| {name} | {outcome.given} of {outcome.asked} | {outcome.precision:.1%} | {outcome.recall:.1%} "
        f"| {outcome.error:.2%} | {outcome.bound:.2%} |"
    )


def main() -> None:
    """Print and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quiet", action="store_true", help="draw nothing")
    arguments = parser.parse_args()
    asked = looked_up()
    print("| category | pairs | refused by guards | similarity, median |\n|---|---|---|---|")
    for name, count in Counter(each.category for each in asked).items():
        of_it = [each for each in asked if each.category == name]
        middle = sorted(each.similarity for each in of_it)[count // 2]
        print(f"| {name} | {count} | {sum(each.blocked for each in of_it)} | {middle:.2f} |")
    print("\n| policy | answered | precision | recall | wrong, of all calls | at most (95%) |")
    print("|---|---|---|---|---|---|")
    print(row("0.95", threshold(asked, 0.95, guarded=False)))
    print(row("0.95 and guards", threshold(asked, 0.95, guarded=True)))
    print(row("0.90 and guards", threshold(asked, 0.90, guarded=True)))
    replays = {delta: list(replay(asked, SemanticOptions(delta), PASSES)) for delta in DELTAS}
    for delta, outcomes in replays.items():
        print(row(f"delta {delta:.0%}, {PASSES} passes", outcomes[-1]))
        print(row(f"delta {delta:.0%}, the first pass", outcomes[0]))
    if not arguments.quiet:
        draw(asked, replays)


if __name__ == "__main__":
    main()
