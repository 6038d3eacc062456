"""Whether two answers say the same: what the curves are fitted to, so in doubt they don't.

Equal words are the same answer. Others are if they name the same numbers and begin with nearly the same
meaning: a model words one answer in several ways, and does so at temperature 0 too where the question was.
"""

import asyncio
import re

import orjson

from gateway.cache.semantic.embedder import Embedder
from policies.cache.answer import CachedAnswer
from policies.cache.semantic_guards import read
from policies.service import Call

_ALIKE = 0.9
_BEGINNING = 800
_WORD = re.compile(r"\w+")


async def same_answer(one: CachedAnswer, other: CachedAnswer, embed: Embedder, cause: Call) -> bool | None:
    """Whether the second answer, that of ``cause``, could be given for the first; None if nobody can say."""
    texts = _text(one), _text(other)
    mine, others = (_WORD.findall(text.lower()) for text in texts)
    if mine == others:
        return True
    if not mine or not others:
        return False
    readings = read(texts[0]), read(texts[1])
    if set(readings[0].numbers) != set(readings[1].numbers):
        return False
    vectors = await asyncio.gather(*(embed(text[:_BEGINNING], cause) for text in texts))
    if vectors[0] is None or vectors[1] is None or vectors[0].shape != vectors[1].shape:
        return None
    return float(vectors[0] @ vectors[1]) >= _ALIKE


def _text(answer: CachedAnswer) -> str:
    (choice,) = orjson.loads(answer.body)["choices"]
    return choice["message"].get("content") or ""
