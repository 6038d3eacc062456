import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_backend.engine.blocks import Block, BlockPool, IntegrityError, chain, root

ROOT = root("model", "tenant")


def filled(pool: BlockPool, *tokens: tuple[int, ...]) -> list[Block]:
    """Blocks taken, filled and published one after the other."""
    blocks, parent = [], ROOT
    for each in tokens:
        block = pool.take()
        assert block is not None
        pool.publish(block, parent, each)
        blocks.append(block)
        parent = chain(parent, each)
    return blocks


def test_a_published_block_is_found_again_after_its_prefix_alone() -> None:
    pool = BlockPool(4, 2)
    first, second = filled(pool, (1, 2), (3, 4))
    assert pool.find(ROOT, (1, 2)) is first
    assert pool.find(chain(ROOT, (1, 2)), (3, 4)) is second
    assert pool.find(ROOT, (3, 4)) is None
    assert pool.find(root("model", "another tenant"), (1, 2)) is None
    assert pool.find(root("another model", "tenant"), (1, 2)) is None
    assert (first.ref, second.ref) == (2, 2)


def test_salts_do_not_run_together() -> None:
    assert root("a", "bc") != root("ab", "c")


def test_a_name_that_stands_for_other_tokens_finds_nothing() -> None:
    pool = BlockPool(2, 2)
    (block,) = filled(pool, (1, 2))
    block.tokens = (1, 3)
    assert pool.find(ROOT, (1, 2)) is None


def test_what_nobody_holds_is_kept_until_needed_and_the_end_of_a_prefix_goes_first() -> None:
    pool = BlockPool(3, 2)
    blocks = filled(pool, (1, 2), (3, 4), (5, 6))
    pool.release(blocks)
    assert (pool.free, pool.cached) == (3, 3)
    assert pool.take() is blocks[2]
    assert pool.find(ROOT, (1, 2)) is blocks[0]
    assert pool.take() is blocks[1]
    assert pool.take() is None
    assert pool.cached == 1


def test_spoilt_blocks_are_not_found_again() -> None:
    pool = BlockPool(2, 2)
    pool.release(filled(pool, (1, 2)), spoilt=True)
    assert pool.find(ROOT, (1, 2)) is None
    pool.check()


def test_new_blocks_lie_side_by_side() -> None:
    pool = BlockPool(8, 2)
    taken = [pool.take() for _ in range(3)]
    assert [block.id for block in taken if block] == [0, 1, 2]
    pool.release([block for block in taken if block])
    assert [block.id for block in (pool.take(), pool.take()) if block] == [0, 1]


@pytest.mark.parametrize("damage", ["a lost reference", "a lost block", "a wrong name"])
def test_the_check_finds(damage: str) -> None:
    pool = BlockPool(3, 2)
    blocks = filled(pool, (1, 2), (3, 4))
    pool.release(blocks)
    pool.check()
    if damage == "a lost reference":
        blocks[0].ref = 1
    elif damage == "a lost block":
        pool.take()
        pool._blocks[2].ref = 0
    else:
        blocks[1].hash = b"other"
    with pytest.raises(IntegrityError):
        pool.check()


@given(st.lists(st.tuples(st.sampled_from("tsr"), st.integers(0, 20)), max_size=80))
def test_no_block_is_ever_lost_or_given_twice(actions: list[tuple[str, int]]) -> None:
    pool = BlockPool(6, 1)
    held: list[Block] = []
    for action, number in actions:
        if action == "t":
            free = pool.free
            block = pool.take()
            assert (block is None) == (free == 0)
            if block is not None:
                assert block not in held
                pool.publish(block, ROOT, (number % 4,))
                held.append(block)
        elif action == "s" and (found := pool.find(ROOT, (number % 4,))) is not None:
            assert found.tokens == (number % 4,)
            held.append(found)
        elif action == "r" and held:
            pool.release([held.pop(number % len(held))], spoilt=number == 20)
        assert pool.free == 6 - len(set(held))
        assert all(block.ref == held.count(block) for block in held)
    pool.release(held)
    pool.check()
