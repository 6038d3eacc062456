"""What is given, what is learnt and what stops it, with vectors of our own and everything else real."""

import asyncio
import json

import numpy as np
import pytest

from gateway.cache.semantic.index import PromptIndex
from gateway.cache.semantic.lookup import Library, SemanticLookup
from policies.cache.answer import CachedAnswer
from policies.cache.key import fingerprint, scope_of
from policies.cache.memory import MemoryCache
from policies.cache.semantic_budget import RiskBudget
from policies.cache.semantic_fit import Pool, SemanticOptions
from policies.facts import SemanticLooked, SemanticVerified
from tests.kit.caching import ask, now
from tests.kit.upstream import RecordingMeter
from tests.kit.virtual_time import run_virtual

LENIENT = SemanticOptions(delta=0.9, verify=1.0)


class Chance:
    """Draws what it is told."""

    def random(self):
        return 0.0


class Budget(RiskBudget):
    """Counts what it is told."""

    found = 0

    def found_wrong(self):
        self.found += 1
        super().found_wrong()


class Scene:
    """``angles`` give texts their direction, in degrees; a text without one has no vector."""

    def __init__(self, options=LENIENT, **angles):
        self.angles = angles
        self.causes = []
        self.meter = RecordingMeter()
        self.store = MemoryCache(now)
        self.tasks = set()
        self.index = PromptIndex(100)
        self.budget = Budget(options)
        self.lookup = SemanticLookup(
            options,
            Library(self.index, self.embed, self.store),
            space="space",
            pool=Pool(),
            budget=self.budget,
            fresh=lambda answer: answer.age(now()) <= 3600,
            rng=Chance(),
            spawn=self.spawn,
            meter=self.meter,
        )

    def spawn(self, work):
        self.tasks.add(asyncio.create_task(work))

    async def embed(self, text, cause):
        self.causes.append((text, cause.tenant))
        angle = self.angles.get(text)
        if angle is None:
            return None
        return np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))], np.float32)

    async def near(self, text, tenant="acme"):
        """The stored text that a prompt is given, and its call."""
        call = prompt(text, tenant)
        near = await self.lookup.nearest(call, scope_of(call, shared=False))
        return None if near is None else text_of(near.answer), call

    async def answered(self, text, said, *, call=None, tenant="acme"):
        """An upstream answers; what comes of that is waited for."""
        call = call or prompt(text, tenant)
        scope = scope_of(call, shared=False)
        key = fingerprint(call, scope=scope, space="space")
        message = {"choices": [{"message": {"content": said}, "finish_reason": "stop"}]}
        answer = CachedAnswer(key, scope, call.model, "up", "m", now(), json.dumps(message).encode())
        self.store.put(answer, 7200)
        self.lookup.learn(call, answer)
        while self.tasks:
            await self.tasks.pop()

    def results(self):
        return [fact.result for fact in self.meter.of(SemanticLooked)]


def prompt(text, tenant):
    return ask(tenant=tenant, messages=[{"role": "user", "content": text}])


def text_of(answer):
    return json.loads(answer.body)["choices"][0]["message"]["content"]


def test_what_is_near_is_given_and_what_is_far_is_not():
    async def main():
        scene = Scene(stored=0, near=10, far=80)
        await scene.answered("stored", "the answer")
        assert (await scene.near("near"))[0] == "the answer"
        assert (await scene.near("far"))[0] is None
        assert (await scene.near("wordless"))[0] is None
        assert scene.results() == ["hit", "far", "busy"]
        assert set(scene.causes) <= {(text, "acme") for text in ("stored", "near", "far", "wordless")}

    run_virtual(main())


def test_another_tenant_s_prompts_are_not_even_compared():
    async def main():
        scene = Scene(stored=0, near=1)
        await scene.answered("stored", "a secret")
        assert (await scene.near("near", tenant="other"))[0] is None
        assert scene.results() == ["far"]

    run_virtual(main())


def test_tenants_who_choose_the_same_id_get_nothing_of_each_other():
    async def main():
        scene = Scene(mine=0, theirs=90, near=91)
        mine, theirs = prompt("mine", "acme"), prompt("theirs", "other")
        for call in (mine, theirs):
            scope = scope_of(call, shared=False)
            call.fingerprint = fingerprint(call, scope=scope, space="space")
            await scene.lookup.nearest(call, scope)
        assert mine.id == theirs.id
        await scene.answered("mine", "a secret", call=mine)
        assert (await scene.near("near", tenant="other"))[0] is None
        await scene.answered("theirs", "no secret", call=theirs)
        assert (await scene.near("near", tenant="other"))[0] == "no secret"

    run_virtual(main())


@pytest.mark.parametrize(("seconds", "result"), [(3599, "hit"), (3601, "expired"), (7201, "expired")])
def test_an_answer_is_given_for_as_long_as_it_is_fresh(seconds, result):
    async def main():
        scene = Scene(stored=0, near=1)
        await scene.answered("stored", "the answer")
        await asyncio.sleep(seconds)
        await scene.near("near")
        assert scene.results() == [result]

    run_virtual(main())


def test_a_guard_refuses_what_a_vector_does_not_see():
    async def main():
        scene = Scene(**{"for 2 people": 0, "for 12 people": 1})
        await scene.answered("for 2 people", "two eggs")
        assert (await scene.near("for 12 people"))[0] is None
        assert scene.results() == ["guarded"]

    run_virtual(main())


def test_what_verification_finds_wrong_is_told_to_the_budget():
    async def main():
        scene = Scene(stored=0, near=3, also=4, last=5, **{"one thing": 0, "another": 90})
        await scene.answered("stored", "one thing")
        for text, truth in (("near", "one thing"), ("also", "another"), ("last", "what has no vector")):
            said, call = await scene.near(text)
            assert said is not None
            await scene.answered(text, truth, call=call)
        assert [(fact.given, fact.same) for fact in scene.meter.of(SemanticVerified)] == [
            (True, True),
            (True, False),
        ]
        assert scene.budget.found == 2, "in doubt it was wrong"

    run_virtual(main())


def test_what_was_asked_upstream_teaches_the_prompt_it_was_near_to():
    async def main():
        scene = Scene(SemanticOptions(delta=0.2, verify=0.0), stored=0, near=2)
        await scene.answered("stored", "the same")
        for _ in range(40):
            said, call = await scene.near("near")
            if said is not None:
                break
            await scene.answered("near", "the same", call=call)
        assert said == "the same"
        assert len(scene.index) == 1, "it stands for both"
        assert all(fact.same and not fact.given for fact in scene.meter.of(SemanticVerified))

    run_virtual(main())
