"""The promise of delta, on labelled pairs with the real model: errors stay below it, with 95% confidence."""

import importlib.util
import sys
from pathlib import Path

import pytest

from policies.cache.semantic_fit import SemanticOptions

ROOT = Path(__file__).parents[4]


def benchmark():
    spec = importlib.util.spec_from_file_location("semantic_cache", ROOT / "benchmarks/semantic_cache.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bench():
    return benchmark()


@pytest.fixture(scope="module")
def asked(bench):
    return bench.looked_up()


def test_the_set_is_what_the_page_says(asked):
    assert len(asked) >= 600
    assert {each.category for each in asked} == {
        "paraphrase",
        "near-miss",
        "negation",
        "number",
        "entity",
        "neighbour",
    }


@pytest.mark.parametrize("delta", [0.01, 0.05])
def test_wrong_answers_stay_below_delta(bench, asked, delta):
    *_, last = bench.replay(asked, SemanticOptions(delta), 8)
    assert last.bound <= delta
    assert last.recall > 0.1


def test_the_guards_refuse_every_other_number_and_few_paraphrases(asked):
    blocked = {each.category: [] for each in asked}
    for each in asked:
        blocked[each.category].append(each.blocked)
    assert all(blocked["number"])
    assert sum(blocked["paraphrase"]) < 0.02 * len(blocked["paraphrase"])
