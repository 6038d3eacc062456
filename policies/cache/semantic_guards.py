"""What vectors of meaning don't see: other numbers, other names, a "not", the opposite, the other way round.

Sentence embeddings put "for 2 people" next to "for 12 people", and a sentence next to its negation (Ribeiro
et al., "Beyond Accuracy: Behavioral Testing of NLP Models with CheckList", 2020). These checks know
English; of other languages they see numbers and names.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from policies.cache.semantic_words import ARTICLES, JOINTS, NEGATORS, NUMBERS, OPPOSITES, PRONOUNS

_TOKEN = re.compile(r"\d+(?:[.,:]\d+)*|[^\W\d_]+(?:['\u2019][^\W\d_]+)?|[\w-]+")


@dataclass(frozen=True, slots=True)
class Reading:
    """What the guards see in a text. Words are in lower case, ``names`` is what is written like a name.

    ``turns`` are the words on either side of one that has a direction, such as "to".
    """

    words: frozenset[str]
    numbers: tuple[str, ...]
    names: frozenset[str]
    negations: int
    turns: frozenset[tuple[str, str]]


def read(text: str) -> Reading:
    """Look through a text."""
    found = [(match[0], _opens(text, match.start())) for match in _TOKEN.finditer(text)]
    words = [token.lower().replace("\u2019", "'") for token, _ in found]
    names = {
        word
        for (token, opens), word in zip(found, words, strict=True)
        if _is_name(token, opens=opens) and word not in PRONOUNS
    }
    return Reading(
        words=frozenset(map(_stem, words)),
        numbers=tuple(sorted(_number(word) for word in words if word in NUMBERS or word[0].isdigit())),
        names=frozenset(map(_stem, names)),
        negations=sum(word in NEGATORS or word.endswith("n't") for word in words),
        turns=frozenset(_turns(words)),
    )


def conflict(one: Reading, other: Reading) -> str | None:
    """Why the two can't mean the same: "number", "entity", "negation", "opposite" or "direction"; or None."""
    if one.numbers != other.numbers:
        return "number"
    if not (one.names <= other.words and other.names <= one.words):
        return "entity"
    if one.negations != other.negations:
        return "negation"
    mine, others = one.words - other.words, other.words - one.words
    if any((a in mine and b in others) or (b in mine and a in others) for a, b in OPPOSITES):
        return "opposite"
    if any((after, before) in other.turns for before, after in one.turns):
        return "direction"
    return None


def _opens(text: str, at: int) -> bool:
    """Whether a sentence begins here, where a capital says nothing."""
    before = text[:at].rstrip(" \t\"'([{*\u201c\u2018-")
    return not before or before[-1] in ".!?:\n"


def _is_name(token: str, *, opens: bool) -> bool:
    rest = token[1:]
    if any(letter.isdigit() for letter in token):
        return any(letter.isalpha() for letter in token) and token.lower() not in NUMBERS
    return "_" in token or any(letter.isupper() for letter in rest) or (token[0].isupper() and not opens)


def _stem(word: str) -> str:
    return word.removesuffix("'s")


def _number(word: str) -> str:
    digits = NUMBERS.get(word, word).replace(",", "")
    return re.sub(r"[^\d.:]", "", digits)


def _turns(words: list[str]) -> Iterator[tuple[str, str]]:
    """For each joint the words around it, articles left out: "A to B", "from A to B", "to B from A"."""
    telling = [word for word in words if word not in ARTICLES]
    for before, joint, after in zip(telling, telling[1:], telling[2:], strict=False):
        if joint in JOINTS and not {before, after} & JOINTS:
            yield (after, before) if joint == "from" else (before, after)
