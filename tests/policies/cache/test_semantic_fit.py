import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.cache.semantic_fit import Fit, Pool, SemanticOptions

SIMILARITY = st.floats(0.7, 1)
OBSERVATIONS = st.lists(st.tuples(SIMILARITY, st.booleans()), max_size=20)
ROUNDING = 1e-9


def taught(pool, observations):
    fit = Fit(pool)
    for similarity, same in observations:
        fit.observe(similarity, same=same)
    return fit


@settings(max_examples=50)
@given(OBSERVATIONS, OBSERVATIONS, SIMILARITY, SIMILARITY)
def test_the_more_similar_the_less_risk(others, seen, one, other):
    pool = Pool()
    taught(pool, others)
    fit = taught(pool, seen)
    low, high = sorted((one, other))
    assert 0 <= fit.risk(high) <= fit.risk(low) + ROUNDING <= 1 + ROUNDING


@settings(max_examples=50)
@given(OBSERVATIONS, OBSERVATIONS, SIMILARITY)
def test_a_right_answer_lowers_the_risk_and_a_wrong_one_raises_it(others, seen, similarity):
    pool = Pool()
    taught(pool, others)
    fit = taught(pool, seen)
    before = fit.risk(similarity)
    fit.observe(similarity, same=True)
    after = fit.risk(similarity)
    assert after <= before + ROUNDING
    fit.observe(similarity, same=False)
    fit.observe(similarity, same=False)
    assert fit.risk(similarity) >= after - ROUNDING


@settings(max_examples=50)
@given(OBSERVATIONS, SIMILARITY)
def test_a_prompt_is_no_evidence_for_itself(seen, similarity):
    """Else each observation would count again at every look."""
    pool = Pool()
    fit = taught(pool, seen)
    before = fit.risk(similarity)
    fit.observe(similarity, same=True)
    after = fit.risk(similarity)
    alone = taught(Pool(), [*seen, (similarity, True)])
    assert after == pytest.approx(alone.risk(similarity))
    assert after <= before + ROUNDING


def test_nothing_is_certain_at_first():
    assert Fit(Pool()).risk(1.0) > 0.1


def test_others_teach_a_new_prompt():
    pool = Pool()
    for _ in range(60):
        taught(pool, [(0.9, True)] * 10)
    assert Fit(pool).risk(0.9) < 0.3 * Fit(Pool()).risk(0.9)


@pytest.mark.parametrize("options", [{"delta": 0}, {"delta": 1}, {"verify": 1.1}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match=r"cache\.semantic"):
        SemanticOptions(**options)
