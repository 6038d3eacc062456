import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cache.semantic.index import Entry, PromptIndex
from policies.cache.semantic_fit import Fit, Pool
from policies.cache.semantic_guards import read

POOL = Pool()


def entry(scope, number):
    return Entry(scope, f"{number}", read(f"{number}"), f"key {number}", Fit(POOL))


def vector(number):
    found = np.random.default_rng(number).normal(size=384).astype(np.float32)
    return found / np.linalg.norm(found)


def test_the_nearest_of_the_scope_and_of_no_other():
    index = PromptIndex(100)
    for number in range(20):
        index.add(entry("a" if number % 2 else "b", number), vector(number))
    found, similarity = index.nearest("a", vector(7))[0]
    assert (found.text, round(similarity, 5)) == ("7", 1)
    assert all(each.scope == "b" for each, _ in index.nearest("b", vector(7)))
    assert index.nearest("c", vector(7)) == []


def test_another_models_vectors_take_the_place_of_those_that_cannot_be_compared():
    index = PromptIndex(100)
    index.add(entry("a", 1), vector(1))
    index.add(entry("b", 2), vector(2))
    index.add(entry("a", 3), vector(3)[:100])
    assert [found.text for found, _ in index.nearest("a", vector(3)[:100])] == ["3"]
    assert index.nearest("a", vector(1)) == []
    assert [found.text for found, _ in index.nearest("b", vector(2))] == ["2"]
    assert len(index) == 2


def test_who_was_of_no_use_for_longest_goes():
    index = PromptIndex(3)
    entries = [entry("a", number) for number in range(5)]
    for number, each in enumerate(entries):
        index.add(each, vector(number))
        index.touch(entries[0])
    assert len(index) == 3
    assert {each.text for number in range(5) for each, _ in index.nearest("a", vector(number))} == {
        "0",
        "3",
        "4",
    }


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=40))
def test_what_was_removed_is_never_found(steps):
    index, kept = PromptIndex(1000), []
    for number, (scope, removes) in enumerate(steps):
        if removes and kept:
            gone = kept.pop(0)
            index.remove(gone)
            index.remove(gone)
        else:
            kept.append(entry(scope, number))
            index.add(kept[-1], vector(number))
    assert len(index) == len(kept)
    for each in kept:
        assert index.nearest(each.scope, vector(int(each.text)))[0][0] is each
    index.clear()
    assert len(index) == 0
