from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.cache.semantic_fit import Fit, Pool, SemanticOptions

OBSERVATIONS = st.lists(st.tuples(st.floats(0.7, 1), st.booleans()), max_size=20)


def taught(observations):
    fit = Fit(Pool())
    for similarity, same in observations:
        fit.observe(similarity, same=same)
    return fit


@settings(max_examples=50)
@given(OBSERVATIONS, st.floats(0.7, 1), st.floats(0.001, 0.5))
def test_a_share_of_calls_goes_upstream_and_more_of_them_the_less_is_allowed(seen, similarity, delta):
    fit = taught(seen)
    share = fit.explores(similarity, delta)
    assert 0 <= share <= 1
    assert fit.explores(similarity, delta / 2) >= share


def test_nothing_is_given_blindly():
    assert Fit(Pool()).explores(1.0, 0.01) > 0.9


def test_others_teach_a_new_prompt():
    pool = Pool()
    for _ in range(60):
        fit = Fit(pool)
        for _ in range(10):
            fit.observe(0.9, same=True)
    assert Fit(pool).explores(0.9, 0.05) < Fit(Pool()).explores(0.9, 0.05)


@pytest.mark.parametrize("delta", [0.01, 0.05])
@pytest.mark.parametrize("threshold", [0.85, 0.95])
def test_errors_stay_below_delta_whatever_the_true_threshold(delta, threshold):
    rng, pool = Random(7), Pool()
    fits = [Fit(pool) for _ in range(10)]
    given = wrong = 0
    for _ in range(4000):
        fit, similarity = rng.choice(fits), rng.uniform(0.75, 1)
        right = similarity > threshold
        if rng.random() < fit.explores(similarity, delta):
            fit.observe(similarity, same=right)
        else:
            given += 1
            wrong += not right
    assert given > 50
    assert wrong <= 4000 * delta


@pytest.mark.parametrize("options", [{"delta": 0}, {"delta": 1}, {"verify": 1.1}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match=r"cache\.semantic"):
        SemanticOptions(**options)
