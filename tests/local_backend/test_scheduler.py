import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_backend.engine.admission import Admission, QueueFull
from local_backend.engine.request import SamplingParams, Sequence
from local_backend.engine.scheduler import Scheduler, Step


def sequence(request_id: int, prompt: int = 4) -> Sequence:
    return Sequence(request_id, tuple(range(prompt)), SamplingParams(max_tokens=4))


def play(step: Step) -> None:
    for chunk in step.prefill:
        chunk.sequence.num_cached = chunk.end
    for each in step.decode:
        each.num_cached += 1


def test_a_long_prompt_is_cut_and_decoding_goes_on_beside_it() -> None:
    scheduler = Scheduler(max_concurrency=2, prefill_budget=10)
    short, long = sequence(0, 4), sequence(1, 25)
    scheduler.add(short)
    scheduler.add(long)
    chunks, decoded = [], []
    for _ in range(4):
        step = scheduler.next_step()
        chunks.append([(chunk.sequence.request_id, chunk.start, chunk.end) for chunk in step.prefill])
        decoded.append([each.request_id for each in step.decode])
        play(step)
    assert chunks == [[(0, 0, 4), (1, 0, 6)], [(1, 6, 16)], [(1, 16, 25)], []]
    assert decoded == [[], [0], [0], [0, 1]]


def test_those_who_wait_get_freed_slots_in_order() -> None:
    scheduler = Scheduler(max_concurrency=1, prefill_budget=100)
    first, second, third = (sequence(index) for index in range(3))
    for each in (first, second, third):
        scheduler.add(each)
    assert [chunk.sequence for chunk in scheduler.next_step().prefill] == [first]
    scheduler.remove(second)
    scheduler.remove(first)
    assert [chunk.sequence for chunk in scheduler.next_step().prefill] == [third]
    scheduler.remove(third)
    assert scheduler.is_idle


@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "step"]), st.integers(0, 5)), max_size=60))
def test_slots_are_never_shared_and_budgets_never_passed(actions: list[tuple[str, int]]) -> None:
    scheduler = Scheduler(max_concurrency=3, prefill_budget=7)
    count = 0
    for action, number in actions:
        if action == "add":
            scheduler.add(sequence(count, prompt=1 + 3 * number))
            count += 1
        elif action == "remove" and number < len(scheduler.sequences):
            scheduler.remove(scheduler.sequences[number])
        elif action == "step":
            step = scheduler.next_step()
            slots = [each.slot for each in scheduler.sequences if each.slot is not None]
            assert len(slots) == len(set(slots)) <= 3
            assert sum(chunk.end - chunk.start for chunk in step.prefill) <= 7
            assert all(each.is_prefilled for each in step.decode)
            assert [each.slot for each in step.decode] == sorted(each.slot or 0 for each in step.decode)
            # Work is never left lying: with anything to do, a step does something.
            assert scheduler.is_idle or step.prefill or step.decode
            play(step)


def test_admission_is_all_or_none_and_names_the_expected_wait() -> None:
    admission = Admission(max_concurrency=2, max_queue=1, first_guess=6.0)
    admission.enter(2)
    with pytest.raises(QueueFull) as full:
        admission.enter(2)
    assert admission.open == 2
    assert full.value.retry_after == pytest.approx(3.0)
    admission.enter(1)
    for _ in range(3):
        admission.leave(1.0)
    assert admission.open == 0
    admission.enter(3)
    with pytest.raises(QueueFull) as sooner:
        admission.enter(1)
    assert sooner.value.retry_after < 3.0
    admission.leave(None)
    assert admission.open == 2
