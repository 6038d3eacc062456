"""The semantic cache of a route: finds answers to other prompts that mean the same, and learns from answers.

A call that isn't given one goes upstream; its true answer is compared with the one it might have got. So is
that of some calls that were. An answer that says the same makes its prompt no entry: the stored prompt, which
stands for both, learns from it.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from gateway.cache.semantic.embedder import Embedder
from gateway.cache.semantic.index import Entry, PromptIndex
from gateway.cache.semantic.judge import same_answer
from gateway.cache.semantic.minilm import Array
from policies.cache.answer import CachedAnswer, Near
from policies.cache.exact import Spawn
from policies.cache.semantic_budget import RiskBudget
from policies.cache.semantic_fit import Fit, Pool, SemanticOptions
from policies.cache.semantic_guards import Reading, conflict, read
from policies.cache.semantic_prompt import Prompt, prompt_of
from policies.facts import SemanticLooked, SemanticVerified
from policies.ports import CacheStore, Meter
from policies.service import Call

_MOST_LOOKS = 1024


@dataclass(slots=True)
class Look:
    """What was seen when a call came: its nearest entry that no guard refuses, if there is any."""

    prompt: Prompt
    reading: Reading
    vector: Array
    entry: Entry | None = None
    similarity: float = 0.0
    given: bool = False


@dataclass(frozen=True, slots=True)
class Library:
    """What a worker's routes look in."""

    index: PromptIndex
    embed: Embedder
    store: CacheStore


class SemanticLookup:
    """A SemanticIndex. ``pool`` is what the route's prompts have in common, ``fresh`` which may be given.

    ``budget`` is what may be risked with them.
    """

    def __init__(  # noqa: PLR0913 - its ports
        self,
        options: SemanticOptions,
        library: Library,
        *,
        space: str,
        pool: Pool,
        budget: RiskBudget,
        fresh: Callable[[CachedAnswer], bool],
        rng: Random,
        spawn: Spawn,
        meter: Meter,
    ) -> None:
        self._options = options
        self._library = library
        self._space = space
        self._pool = pool
        self._budget = budget
        self._fresh = fresh
        self._rng = rng
        self._spawn = spawn
        self._meter = meter
        self._looks: OrderedDict[tuple[str, str | None], Look] = OrderedDict()

    async def nearest(self, call: Call, scope: str) -> Near | None:
        look, result = await self._look(call, scope)
        near = None
        if look is not None and look.entry is not None:
            near, result = await self._decide(look, look.entry)
        self._meter.emit(SemanticLooked(call, result))
        if look is not None and (near is None or near.verify):
            self._looks[_name(call)] = look
            if len(self._looks) > _MOST_LOOKS:  # calls that failed leave theirs behind
                self._looks.popitem(last=False)
        return near

    def learn(self, call: Call, answer: CachedAnswer) -> None:
        self._spawn(self._learn(call, answer, self._looks.pop(_name(call), None)))

    async def _look(self, call: Call, scope: str) -> tuple[Look | None, str]:
        prompt = prompt_of(call, scope=scope, space=self._space)
        if prompt is None:
            return None, "unsuited"
        vector = await self._library.embed(prompt.text, call)
        if vector is None:
            return None, "busy"
        look = Look(prompt, read(prompt.text), vector)
        similar = [
            found
            for found in self._library.index.nearest(prompt.scope, vector)
            if found[1] >= self._options.similar
        ]
        for entry, similarity in similar:
            if conflict(look.reading, entry.reading) is None:
                look.entry, look.similarity = entry, similarity
                return look, ""
        return look, "guarded" if similar else "far"

    async def _decide(self, look: Look, entry: Entry) -> tuple[Near | None, str]:
        found = await self._library.store.get(entry.key)
        if found is None or not self._fresh(found[0]):
            return None, "expired"
        self._library.index.touch(entry)
        if not self._budget.allows(entry.fit.risk(look.similarity)):
            return None, "explored"
        look.given = True
        return Near(found[0], look.similarity, verify=self._rng.random() < self._options.verify), "hit"

    async def _learn(self, call: Call, answer: CachedAnswer, look: Look | None) -> None:
        if look is None:
            look, _ = await self._look(call, answer.scope)
            if look is None:
                return
        library, entry = self._library, look.entry
        if entry is not None and entry.key == answer.key:
            return
        if entry is not None:
            kept = await library.store.get(entry.key)
            if kept is None:
                library.index.remove(entry)
            elif await self._compare(call, answer, kept[0], look) or entry.text == look.prompt.text:
                if not self._fresh(kept[0]) or entry.text == look.prompt.text:
                    entry.key = answer.key
                return
        library.index.add(
            Entry(look.prompt.scope, look.prompt.text, look.reading, answer.key, Fit(self._pool)), look.vector
        )

    async def _compare(
        self, call: Call, answer: CachedAnswer, stored: CachedAnswer, look: Look
    ) -> bool | None:
        """Whether the stored answer would have been right, which its prompt learns; None if nobody knows."""
        assert look.entry is not None  # noqa: S101 - asked before
        same = await same_answer(stored, answer, self._library.embed, call)
        if look.given and not same:  # in doubt it was wrong
            self._budget.found_wrong()
        if same is None:
            return None
        look.entry.fit.observe(look.similarity, same=same)
        self._meter.emit(SemanticVerified(call, look.similarity, same, look.given))
        return same


def _name(call: Call) -> tuple[str, str | None]:
    """What a look is found by: the id alone may be a client's choice, and two tenants choose the same one."""
    return call.id, call.fingerprint
