"""How long a call waits for a vector, in virtual time."""

import asyncio
from itertools import chain

import numpy as np
import pytest

from gateway.cache.semantic.embedder import Batched, BatchOptions
from tests.kit.upstream import make_call
from tests.kit.virtual_time import LoopClock, run_virtual

CAUSE = make_call()
OPTIONS = BatchOptions(patience=0.5, most=8, together=4)


class Model:
    """Takes ``seconds`` for a batch; without a voice it has no vectors."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds
        self.silent = False
        self.batches = []

    async def __call__(self, wanted):
        self.batches.append([text for text, _ in wanted])
        await asyncio.sleep(self.seconds)
        return [None if self.silent else np.full(3, len(text), np.float32) for text, _ in wanted]


class Scene:
    def __init__(self, model):
        self.tasks = set()
        self.model = model
        self.embed = Batched(model, OPTIONS, clock=LoopClock(), spawn=self.spawn)

    def spawn(self, work):
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def ask(self, text):
        """The vector, and how long it took."""
        began = asyncio.get_running_loop().time()
        vector = await self.embed(text, CAUSE)
        return vector, asyncio.get_running_loop().time() - began

    async def settle(self):
        while self.tasks:
            await asyncio.wait(self.tasks)


def test_what_waits_goes_together_and_equal_texts_once():
    async def main():
        scene = Scene(Model(0.1))
        texts = ["a", "bb", "bb", "ccc", "a"]
        vectors = await asyncio.gather(*(scene.embed(text, CAUSE) for text in texts))
        assert [int(vector[0]) for vector in vectors] == [1, 2, 2, 3, 1]
        assert sorted(chain.from_iterable(scene.model.batches)) == ["a", "bb", "ccc"]

    run_virtual(main())


def test_no_call_waits_longer_than_its_patience_and_the_next_ones_not_at_all():
    async def main():
        scene = Scene(Model(30.0))
        assert await scene.ask("first") == (None, 0.5)
        for number in range(20):
            assert await scene.ask(f"later {number}") == (None, 0.0)
        assert scene.model.batches == [["first"]], "one text at a time finds out whether it is back"

    run_virtual(main())


def test_once_a_batch_is_in_time_calls_wait_again():
    async def main():
        scene = Scene(Model(3.0))
        assert (await scene.ask("slow"))[0] is None
        scene.model.seconds = 0.1
        await scene.settle()
        assert await scene.ask("tells") == (None, 0.0)
        await scene.settle()
        vector, took = await scene.ask("there")
        assert vector is not None
        assert took == pytest.approx(0.1)

    run_virtual(main())


def test_a_model_that_fails_at_once_is_asked_every_time():
    async def main():
        scene = Scene(Model(0.01))
        scene.model.silent = True
        for number in range(3):
            assert (await scene.ask(f"{number}"))[0] is None
        scene.model.silent = False
        assert (await scene.ask("back"))[0] is not None

    run_virtual(main())


def test_what_finds_no_room_goes_without_at_once():
    async def main():
        scene = Scene(Model(0.2))
        found = await asyncio.gather(*(scene.ask(f"{number}") for number in range(20)))
        turned_away = [took for vector, took in found if vector is None and took == 0]
        assert len(turned_away) >= 20 - OPTIONS.most - OPTIONS.together
        assert max(took for _, took in found) <= OPTIONS.patience

    run_virtual(main())


def test_a_client_that_leaves_takes_nobody_s_vector_along():
    async def main():
        scene = Scene(Model(0.2))
        leaves, stays = (asyncio.create_task(scene.embed("same", CAUSE)) for _ in range(2))
        await asyncio.sleep(0.1)
        leaves.cancel()
        assert await stays is not None
        assert scene.model.batches == [["same"]]

    run_virtual(main())


@pytest.mark.parametrize("options", [{"patience": 0}, {"most": 0}, {"together": 0}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match=r"batch|embeddings_timeout"):
        BatchOptions(**options)
