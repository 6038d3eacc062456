import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.budget import BudgetOptions, RetryBudget

STEADY = BudgetOptions(ratio=0.1, per_second=1, memory=10)


def test_a_quiet_upstream_has_its_steady_inflow():
    budget = RetryBudget(STEADY)
    assert [budget.withdraw(0) for _ in range(11)] == [True] * 10 + [False]
    assert not budget.withdraw(1.0)
    assert budget.withdraw(1.1)


def test_ten_requests_pay_for_one_retry():
    budget = RetryBudget(BudgetOptions(ratio=0.1, per_second=0))
    for _ in range(9):
        budget.deposit(5)
    assert not budget.withdraw(5)
    budget.deposit(5)
    budget.deposit(5)
    assert budget.withdraw(5)


def test_deposits_are_forgotten():
    budget = RetryBudget(BudgetOptions(ratio=1, per_second=0, memory=10))
    for _ in range(100):
        budget.deposit(0)
    assert budget.balance(10) == pytest.approx(100 / math.e)
    assert not budget.withdraw(60)


def test_a_refund_pays_for_the_next():
    budget = RetryBudget(BudgetOptions(ratio=0, per_second=0.1))
    assert budget.withdraw(0)
    assert not budget.withdraw(0)
    budget.refund()
    assert budget.withdraw(0)


@given(
    steps=st.lists(
        st.tuples(st.floats(0, 3), st.sampled_from(["request", "retry", "retry", "answered"])), max_size=200
    ),
    ratio=st.floats(0, 1),
    per_second=st.floats(0, 5),
)
def test_what_failed_is_bounded_by_traffic_and_time(steps, ratio, per_second):
    budget = RetryBudget(BudgetOptions(ratio=ratio, per_second=per_second))
    now, requests, out, answered = 0.0, 0, 0, 0
    for pause, step in steps:
        now += pause
        if step == "request":
            budget.deposit(now)
            requests += 1
        elif step == "retry":
            out += budget.withdraw(now)
        elif answered < out:
            budget.refund()
            answered += 1
        assert budget.balance(now) >= 0
        assert out - answered <= ratio * requests + per_second * (now + 10) + 1e-6


@pytest.mark.parametrize("options", [{"ratio": 1.1}, {"ratio": -1}, {"per_second": -1}, {"memory": 0}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match="give"):
        BudgetOptions(**options)
