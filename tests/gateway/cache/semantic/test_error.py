"""The promise of delta, on labelled pairs with the real model: errors stay below it."""

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
def tuned(bench):
    return bench.looked_up(bench.TUNED)


@pytest.fixture(scope="module")
def held_out(bench):
    return bench.looked_up(bench.HELD_OUT)


def test_the_sets_are_what_the_page_says(tuned, held_out):
    assert (len(tuned), len(held_out)) == (627, 350)
    assert {each.category for each in tuned} == {
        "paraphrase",
        "near-miss",
        "negation",
        "number",
        "entity",
        "neighbour",
    }
    assert {each.category for each in held_out} == {
        "paraphrase",
        "near-miss",
        "negation",
        "number",
        "unit",
        "date",
        "name",
        "direction",
    }
    assert not {each.stored for each in tuned} & {each.stored for each in held_out}


@pytest.mark.parametrize(("delta", "recall"), [(0.01, 0.4), (0.05, 0.6)])
def test_wrong_answers_stay_below_delta(bench, tuned, delta, recall):
    *_, last = bench.replay(tuned, SemanticOptions(delta), 8, seed=7)
    assert last.bound <= delta
    assert last.recall > recall


@pytest.mark.parametrize(("delta", "recall"), [(0.01, 0.05), (0.05, 0.05)])
def test_wrong_answers_stay_below_delta_where_the_guards_miss_most_traps(bench, held_out, delta, recall):
    *_, last = bench.replay(held_out, SemanticOptions(delta), 12, seed=7)
    assert last.bound <= delta
    assert last.recall > recall
    assert bench.threshold(held_out, 0.95, guarded=True).error > 3 * 0.01, (
        "a fixed threshold promises nothing"
    )


def test_the_guards_refuse_every_other_number_and_few_paraphrases(tuned, held_out):
    for asked in (tuned, held_out):
        assert all(each.blocked for each in asked if each.category == "number")
    blocked = [each.blocked for each in tuned if each.category == "paraphrase"]
    assert sum(blocked) < 0.02 * len(blocked)
