import math
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from policies.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NoHealthyUpstream,
    StreamInterrupted,
    UpstreamBusy,
    UpstreamContextTooLong,
    UpstreamKeyRejected,
    UpstreamQuotaExhausted,
    UpstreamRejected,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from policies.facts import HealthChanged, UpstreamEjected
from policies.health import Health, HealthOptions, HealthState, counts_as_failure
from policies.outlier import OutlierOptions
from policies.service import Reply
from tests.kit.upstream import RecordingMeter

BROKEN = UpstreamUnavailable("reset")
EXACT = OutlierOptions(jitter=0)


def make_health(**options):
    meter = RecordingMeter()
    options = HealthOptions(**{"outlier": EXACT, **options})
    health = Health("up", model="m", options=options, rng=random.Random(1), meter=meter)
    return health, meter


WHOLE = Reply("up", "m", complete=True)
PART = Reply("up", "m")


def play(health, now, error=None):
    """One call: admitted, answered unless it fails, settled."""
    ticket = health.admit(now)
    assert ticket is not None
    if error is None:
        health.first_event(ticket, now)
    health.settle(ticket, now, error, WHOLE if error is None else None)


def eject(health, now=0.0):
    for _ in range(5):
        play(health, now, BROKEN)
    assert health.state(now) is HealthState.OPEN


@pytest.mark.parametrize(
    "wrong",
    [{"passes": 0}, {"floor": 0}, {"floor": 2}, {"ramp": -1}, {"patience": 0}, {"panic": 0}, {"hint": 0}],
)
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        HealthOptions(**wrong)


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (UpstreamUnavailable("x"), True),
        (UpstreamTimeout("x"), True),
        (StreamInterrupted("x"), True),
        (UpstreamThrottled("x"), False),
        (UpstreamBusy("x"), False),
        (UpstreamRejected("x", status=400), False),
        (UpstreamContextTooLong("x", status=400), False),
        (NoHealthyUpstream("x"), False),
        (DeadlineExceeded("x"), False),
        (InvalidRequest("x"), False),
        (GeneratorExit(), False),
        (ValueError("a defect of our own"), False),
    ],
)
def test_blame(error, counts):
    assert counts_as_failure(error) is counts
    health, _ = make_health()
    for _ in range(5):
        play(health, 0, error)
    assert (health.state(0) is HealthState.OPEN) is counts


def test_the_life_of_an_ejection():
    health, meter = make_health()
    eject(health)
    assert health.admit(0) is None
    assert health.wait(4) == 6
    report = health.report(4)
    assert (report.state, report.why, report.next_probe, report.ejections) == (
        HealthState.OPEN, "5 failures in a row (UpstreamUnavailable)", 6, 1,
    )  # fmt: skip
    trial = health.admit(10)
    assert trial.trial
    assert not health.available(10)
    assert health.wait(10) == 1
    health.first_event(trial, 11)
    play(health, 11)
    assert health.state(11) is HealthState.CLOSED
    told = [(fact.before, fact.after) for fact in meter.of(HealthChanged)]
    assert told == [("closed", "open"), ("open", "half-open"), ("half-open", "closed")]
    assert [(fact.count, fact.seconds) for fact in meter.of(UpstreamEjected)] == [(1, 10)]


def test_the_weight_climbs_back():
    health, _ = make_health()
    assert health.weight_factor(0) == 1
    eject(health)
    play(health, 10)
    play(health, 10)
    assert [health.weight_factor(10 + s) for s in (0, 3, 6, 30, 60, 600)] == [0.1, 0.1, 0.1, 0.5, 1, 1]


def test_failed_trials_make_ejections_longer():
    health, meter = make_health()
    eject(health)
    for now in (10, 30, 60):
        play(health, now, BROKEN)
    assert [fact.seconds for fact in meter.of(UpstreamEjected)] == [10, 20, 30, 40]


@pytest.mark.parametrize("error", [GeneratorExit(), UpstreamBusy("busy"), UpstreamRejected("no", status=400)])
def test_a_trial_that_tells_nothing_gives_its_place_back(error):
    health, _ = make_health()
    eject(health)
    play(health, 10, error)
    assert health.state(10) is HealthState.HALF_OPEN
    assert health.available(10)


def test_a_slow_trial_lets_another_go_after_a_while():
    health, _ = make_health(passes=1)
    eject(health)
    slow = health.admit(10)
    assert not health.available(19.9)
    assert health.admit(20) is not None
    assert not health.available(20)
    health.first_event(slow, 21)
    assert health.state(21) is HealthState.CLOSED


def test_what_began_before_an_ejection_counts_no_more():
    health, _ = make_health()
    old = [health.admit(0) for _ in range(20)]
    eject(health)
    play(health, 10)
    play(health, 10)
    for ticket in old:
        health.settle(ticket, 11, BROKEN, None)
    assert health.state(11) is HealthState.CLOSED


def test_a_stream_that_breaks_after_its_trial_passed_counts():
    health, _ = make_health(passes=1)
    eject(health)
    tickets = []
    for _ in range(5):
        tickets.append(health.admit(10))
        health.first_event(tickets[-1], 10)
    for ticket in tickets:
        health.settle(ticket, 15, StreamInterrupted("cut"), PART)
    assert health.report(15).ejections == 2


def test_a_refused_key_stays_out_until_somebody_acts_or_much_time_passed():
    health, _ = make_health()
    play(health, 0, UpstreamKeyRejected("no credit", status=402))
    assert health.state(899) is HealthState.DISABLED
    assert "no credit" in health.report(1).why
    assert health.panic(1) is False
    play(health, 900, UpstreamKeyRejected("no credit", status=402))
    assert health.state(901) is HealthState.DISABLED
    health.resume(902)
    play(health, 902)
    play(health, 902)
    assert health.state(902) is HealthState.CLOSED


@pytest.mark.parametrize(("retry_after", "reset"), [(86400.0, 86400), (None, 600)])
def test_a_daily_cap_blocks_until_its_reset(retry_after, reset):
    health, meter = make_health()
    play(health, 0, UpstreamQuotaExhausted("50 a day", retry_after=retry_after))
    assert health.state(reset - 1) is HealthState.BLOCKED
    assert health.state(reset) is HealthState.HALF_OPEN
    assert not meter.of(UpstreamEjected)


def test_draining_takes_no_new_calls_and_lets_the_old_ones_end():
    health, _ = make_health()
    old = health.admit(0)
    health.drain(1)
    assert health.admit(1) is None
    assert health.wait(1) == math.inf
    assert health.report(1).next_probe is None
    health.settle(old, 2, UpstreamKeyRejected("x"), None)
    assert health.state(10**6) is HealthState.DRAINING
    health.probed(3, None, proof=True)
    assert health.state(3) is HealthState.DRAINING
    health.resume(4)
    assert health.state(4) is HealthState.CLOSED
    assert health.weight_factor(4) == 0.1


def test_what_was_ejected_before_draining_must_prove_itself():
    health, _ = make_health()
    eject(health)
    health.drain(1)
    health.drain(2)
    health.resume(3)
    assert health.state(3) is HealthState.HALF_OPEN
    assert health.report(3).ejections == 0


def test_a_probe_before_its_time_makes_nothing_worse():
    health, meter = make_health()
    eject(health)
    health.probed(2, None, proof=True)
    assert health.state(2) is HealthState.HALF_OPEN
    play(health, 2, BROKEN)
    assert health.report(2).next_probe == 8
    assert len(meter.of(UpstreamEjected)) == 1


def test_panic_tries_now_and_then():
    health, _ = make_health()
    eject(health)
    assert health.panic(1)
    play(health, 1, BROKEN)
    assert not health.panic(2)
    assert health.panic(3)
    play(health, 3)
    play(health, 3)
    assert health.state(3) is HealthState.CLOSED


def test_a_free_probe_only_hints_and_not_too_often():
    health, _ = make_health()
    eject(health)
    health.probed(1, UpstreamUnavailable("still"), proof=False)
    assert health.state(1) is HealthState.OPEN
    health.probed(2, None, proof=False)
    assert health.state(2) is HealthState.HALF_OPEN
    play(health, 2, BROKEN)
    health.probed(3, None, proof=False)
    assert health.state(3) is HealthState.OPEN


def test_paid_probes_are_trials():
    health, _ = make_health()
    eject(health)
    health.probed(1, None, proof=True)
    assert health.state(1) is HealthState.HALF_OPEN
    health.probed(2, None, proof=True)
    assert health.state(2) is HealthState.CLOSED
    health.probed(3, UpstreamKeyRejected("revoked"), proof=True)
    assert health.state(3) is HealthState.DISABLED


def test_a_key_that_may_not_list_models_may_still_call_one():
    health, _ = make_health()
    eject(health)
    health.probed(1, UpstreamKeyRejected("missing scope"), proof=False)
    assert health.state(1) is HealthState.OPEN


class HealthMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order, a few things hold."""

    def __init__(self):
        super().__init__()
        self.health, self.meter = make_health(passes=2)
        self.now = 0.0
        self.open = []

    @rule(seconds=st.sampled_from([0.1, 1.0, 7.0, 40.0, 400.0]))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def begin(self):
        expected = self.health.available(self.now)
        ticket = self.health.admit(self.now)
        assert (ticket is not None) is expected
        if ticket is not None:
            self.open.append(ticket)

    @precondition(lambda self: self.open)
    @rule(
        error=st.sampled_from(
            [
                None,
                BROKEN,
                UpstreamBusy("b"),
                GeneratorExit(),
                UpstreamKeyRejected("k"),
                UpstreamQuotaExhausted("q"),
            ]
        ),
        answered=st.booleans(),
        data=st.data(),
    )
    def end(self, error, answered, data):
        ticket = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        if error is None or answered:
            self.health.first_event(ticket, self.now)
        self.health.settle(ticket, self.now, error, WHOLE if error is None else PART if answered else None)

    @rule(name=st.sampled_from(["drain", "resume", "panic"]))
    def operate(self, name):
        getattr(self.health, name)(self.now)

    @rule(proof=st.booleans(), error=st.sampled_from([None, BROKEN]))
    def probe(self, proof, error):
        self.health.probed(self.now, error, proof=proof)

    @invariant()
    def it_is_available_or_says_when_to_ask(self):
        wait = self.health.wait(self.now)
        assert wait >= 0
        assert (wait == 0) is self.health.available(self.now)
        assert (wait == math.inf) is (self.health.state(self.now) is HealthState.DRAINING)

    @invariant()
    def the_report_is_sane(self):
        report = self.health.report(self.now)
        assert 0.1 <= report.weight_factor <= 1
        assert 0 <= report.ejections <= 30
        assert 0 <= report.error_ratio <= 1
        assert report.why or report.state is HealthState.CLOSED

    @invariant()
    def facts_form_a_chain(self):
        state = self.health.state(self.now)  # whoever asks first notices that a time is up
        states = ["closed"]
        for fact in self.meter.of(HealthChanged):
            assert fact.before == states[-1]
            states.append(fact.after)
        assert states[-1] == state.value


TestHealthMachine = HealthMachine.TestCase
TestHealthMachine.settings = settings(max_examples=60, stateful_step_count=40)
