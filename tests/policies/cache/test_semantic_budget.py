from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policies.cache.semantic_budget import RiskBudget
from policies.cache.semantic_fit import Fit, Pool, SemanticOptions

RISKS = st.lists(st.floats(0, 1), max_size=300)
DELTA = st.floats(0.001, 0.5)
ROUNDING = 1e-9


def budget(delta, verify=0.05):
    return RiskBudget(SemanticOptions(delta, verify))


@given(RISKS, DELTA)
def test_no_more_is_ever_risked_than_the_calls_until_then_allow(risks, delta):
    ours, spent = budget(delta), 0.0
    for number, risk in enumerate(risks, start=1):
        spent += risk * ours.allows(risk)
        assert spent <= delta * number + ROUNDING


@given(st.floats(0, 1), DELTA)
@example(0.3, 0.01)
def test_the_smaller_delta_the_more_calls_go_upstream(risk, delta):
    """Of calls of one risk, at every moment."""
    strict, lenient = budget(delta / 2), budget(delta)
    given = [0, 0]
    for _ in range(500):
        given[0] += strict.allows(risk)
        given[1] += lenient.allows(risk)
        assert given[0] <= given[1]


@given(DELTA, st.floats(0.51, 1))
def test_what_is_rather_wrong_is_never_given(delta, risk):
    ours = budget(delta)
    assert not any(ours.allows(risk) for _ in range(300))


def test_the_surest_are_given_first():
    """Half of the calls are nearly certain, half are not, and the budget is enough for the first half."""
    ours = budget(0.02)
    given = [sum(ours.allows(risk) for risk in (0.03, 0.4)) for _ in range(1000)]
    assert sum(given[500:]) == pytest.approx(500, rel=0.05)


def test_long_quiet_times_are_not_all_spent_at_once():
    ours = budget(0.01)
    for _ in range(100_000):
        ours.allows(0.0)
    assert sum(0.4 * ours.allows(0.4) for _ in range(1000)) <= 1000 * 0.01 + 1000 * 0.01


@pytest.mark.parametrize("verify", [0.05, 1.0])
def test_what_verification_finds_holds_whatever_the_curves_say(verify):
    """Every third answer is wrong, and each is said to be sure."""
    rng, ours, calls = Random(7), budget(0.05, verify), 20_000
    wrong = 0
    for number in range(calls):
        if ours.allows(0.0) and number % 3 == 0:
            wrong += 1
            if rng.random() < verify:
                ours.found_wrong()
    assert wrong <= 1.2 * 0.05 * calls


def test_without_verification_the_curves_are_believed():
    ours = budget(0.01, verify=0.0)
    ours.allows(0.0)
    ours.found_wrong()
    assert ours.allows(0.0)


@pytest.mark.parametrize("delta", [0.01, 0.05])
@pytest.mark.parametrize("threshold", [0.85, 0.95])
def test_errors_stay_below_delta_whatever_the_true_threshold(delta, threshold):
    """And half of what could be given is, the time of learning included."""
    rng, pool, ours, calls = Random(7), Pool(), budget(delta), 4000
    fits = [Fit(pool) for _ in range(10)]
    given = wrong = right = 0
    for _ in range(calls):
        fit, similarity = rng.choice(fits), rng.uniform(0.75, 1)
        same = similarity > threshold
        right += same
        if ours.allows(fit.risk(similarity)):
            given += 1
            wrong += not same
        else:
            fit.observe(similarity, same=same)
    assert given - wrong > 0.5 * right
    assert wrong <= calls * delta
