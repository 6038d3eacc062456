import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_backend.engine.blocks import BlockPool
from local_backend.engine.request import SamplingParams, Sequence
from local_backend.engine.scheduler import Chunk, Scheduler, SchedulerOptions, Step
from local_backend.engine.window import Window

PARAMS = SamplingParams(max_tokens=4)


def sequence(request_id: int, prompt: int = 4, priority: int = 0, first: int = 0) -> Sequence:
    return Sequence(request_id, tuple(range(first, first + prompt)), PARAMS, priority)


def scheduler(blocks: int = 100, size: int = 4, **options: int | Window) -> Scheduler:
    return Scheduler(BlockPool(blocks, size), SchedulerOptions(**{"chunk": size, **options}))  # type: ignore[arg-type]


def play(scheduler: Scheduler, step: Step) -> None:
    """What the engine does with a step."""
    for chunk in (*step.decode, *step.prefill):
        scheduler.advance(chunk.sequence, chunk.end)
        if chunk.end == len(chunk.sequence):
            chunk.sequence.generated.append(chunk.end % 7)


def spans(chunks: list[Chunk]) -> list[tuple[int, int, int]]:
    return [(chunk.sequence.request_id, chunk.start, chunk.end) for chunk in chunks]


def test_a_long_prompt_is_cut_and_decoding_goes_on_beside_it() -> None:
    engine = scheduler(prefill_budget=8)
    for each in (sequence(0, 4), sequence(1, 19, first=100)):
        engine.add(each)
    steps = []
    for _ in range(4):
        step = engine.next_step()
        steps.append((spans(step.prefill), spans(step.decode)))
        play(engine, step)
    assert steps == [
        ([(0, 0, 4), (1, 0, 4)], []),
        ([(1, 4, 8), (1, 8, 12)], [(0, 4, 5)]),
        ([(1, 12, 16), (1, 16, 19)], [(0, 5, 6)]),
        ([], [(0, 6, 7), (1, 19, 20)]),
    ]


def test_the_urgent_goes_first_and_takes_the_place_of_the_less_urgent() -> None:
    engine = scheduler(max_concurrency=2)
    for each in (sequence(0, priority=5), sequence(1, priority=9), sequence(2, priority=5)):
        engine.add(each)
    step = engine.next_step()
    assert [request_id for request_id, *_ in spans(step.prefill)] == [0, 2]
    play(engine, step)
    engine.add(sequence(3, priority=0))
    step = engine.next_step()
    assert spans(step.prefill) == [(3, 0, 4)]
    assert spans(step.decode) == [(0, 4, 5)]
    assert (engine.running, engine.waiting, engine.preemptions) == (2, 2, 1)


def test_equals_do_not_preempt_each_other_for_a_place() -> None:
    engine = scheduler(max_concurrency=1)
    engine.add(sequence(0))
    play(engine, engine.next_step())
    engine.add(sequence(1))
    assert spans(engine.next_step().decode) == [(0, 4, 5)]
    assert engine.preemptions == 0


def test_without_blocks_the_last_comer_is_preempted_and_catches_up_from_its_prefix() -> None:
    engine = scheduler(blocks=4, replay=2)
    older, newer = sequence(0, 7), sequence(1, 5, first=50)
    engine.add(older)
    engine.add(newer)
    while not engine.preemptions:
        play(engine, engine.next_step())
    assert len(newer.generated) == 2
    assert (engine.running, engine.waiting, newer.table) == (1, 1, [])
    assert spans(engine.next_step().decode) == [(0, 9, 10)]
    engine.remove(older)
    step = engine.next_step()
    # Its first block is still there, the rest of the prompt a chunk as before; its own tokens come in rows.
    assert engine.prefix_hits == 4
    assert spans(step.prefill) == [(1, 4, 5)]
    play(engine, step)
    assert spans(engine.next_step().decode) == [(1, 5, 7)]


def test_a_known_prefix_is_not_computed_again_but_the_last_token_is() -> None:
    engine = scheduler()
    for request_id in range(2):
        each = sequence(request_id, 8)
        engine.add(each)
        step = engine.next_step()
        assert spans(step.prefill) == ([(0, 0, 4), (0, 4, 8)] if request_id == 0 else [(1, 4, 8)])
        play(engine, step)
        engine.remove(each)
    assert engine.prefix_hits == 4


@pytest.mark.parametrize("share_answers", [False, True])
def test_answers_are_a_prefix_only_where_they_round_alike(share_answers: bool) -> None:
    engine = scheduler(share_answers=share_answers)
    first = sequence(0, 4)
    engine.add(first)
    for _ in range(6):
        play(engine, engine.next_step())
    engine.remove(first)
    again = Sequence(1, (*first.prompt, *first.generated, 1, 2), PARAMS)
    engine.add(again)
    engine.next_step()
    assert engine.prefix_hits == (8 if share_answers else 4)


ACTIONS = st.tuples(st.sampled_from(["add", "remove", "spoil", "step", "step"]), st.integers(0, 9))


@pytest.mark.parametrize("window", [None, Window(1, 2), Window(2, 3)])
@given(actions=st.lists(ACTIONS, max_size=80))
def test_blocks_are_held_once_budgets_kept_and_nothing_starves(
    window: Window | None, actions: list[tuple[str, int]]
) -> None:
    options: dict[str, Window] = {} if window is None else {"window": window}
    engine = scheduler(blocks=8, size=2, max_concurrency=3, prefill_budget=5, replay=3, **options)
    pool = engine._tables.pool
    alive: list[Sequence] = []
    for count, (action, number) in enumerate(actions):
        if action == "add":
            alive.append(sequence(count, 1 + number, priority=number % 3, first=number % 2))
            engine.add(alive[-1])
        elif action in ("remove", "spoil") and alive:
            engine.remove(alive.pop(number % len(alive)), spoilt=action == "spoil")
        elif action == "step":
            step = engine.next_step()
            chunks = [*step.prefill, *step.decode]
            assert engine.is_idle or chunks
            assert sum(chunk.end - chunk.start for chunk in step.prefill) <= 5 + 1
            assert all(chunk.end - chunk.start <= 3 for chunk in step.decode)
            for chunk in chunks:
                gone = chunk.sequence.dropped
                assert chunk.sequence.blocks * 2 >= chunk.end
                written = chunk.sequence.table[chunk.start // 2 - gone : -(-chunk.end // 2) - gone]
                assert all(block.ref == 1 and block.hash is None for block in written)
                if window is not None:
                    assert len(chunk.sequence.table) <= window.blocks
                    assert gone == max(0, -(-chunk.end // 2) - window.blocks)
            play(engine, step)
            for each in [each for each in alive if len(each) >= (14 if window is None else 24)]:
                alive.remove(each)
                engine.remove(each)
        assert pool.free == 8 - len({block.id for each in alive for block in each.table})
    for each in alive:
        engine.remove(each)
    pool.check()
