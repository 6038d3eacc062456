"""Affinity: sends a conversation to the upstream that has its prefix in its cache.

A provider that caches prefixes answers sooner and bills less when the turns of a conversation meet
the same account. Rendezvous hashing (Thaler and Ravishankar, 1998), weighted as in Schindelhauer and
Schomaker (2005), moves only the conversations of the upstream that came or went. Bounded load
(Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018) keeps a popular
prefix from drowning its upstream: above ``bound`` times its fair share the next in rank takes it.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from math import ceil, log
from typing import Any

from policies.member import Member
from policies.service import Call

_PREFIX = 4096
"""Characters of a text that tell conversations apart."""
_MASK = (1 << 64) - 1


def conversation(call: Call) -> int:
    """64 bits that stay the same through a conversation's turns.

    From the caller's ``prompt_cache_key`` where there is one, else from the messages up to the first
    of the user, else from the beginning of the prompt.
    """
    digest = blake2b(call.model.encode(errors="replace"), digest_size=8)
    for text in _beginning(call):
        digest.update(b"\0" + text[:_PREFIX].encode(errors="replace"))
    return int.from_bytes(digest.digest(), "big")


def _beginning(call: Call) -> Iterator[str]:
    body = call.body
    if isinstance(key := body.get("prompt_cache_key"), str):
        yield key
        return
    if isinstance(messages := body.get("messages"), list):
        for message in messages:
            if isinstance(message, dict):
                yield from _texts(message.get("content"))
                if message.get("role") == "user":
                    return
        return
    yield from _texts(body.get("prompt", body.get("input")))


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, str):
                yield part
            elif isinstance(part, dict) and isinstance(text := part.get("text"), str):
                yield text


class Affinity:
    """Strategy: the first of the conversation's ranking that isn't above its bound."""

    def __init__(self, bound: float = 1.5) -> None:
        self._bound = bound
        self._seeds: dict[str, int] = {}

    def choose(self, members: Sequence[Member], call: Call, now: float) -> Member:
        key = conversation(call)
        weights = [member.weigh(now) for member in members]
        ranking = sorted(
            range(len(members)),
            key=lambda i: self._score(key, members[i].name, weights[i]),
            reverse=True,
        )
        share = self._bound * (1 + sum(member.inflight for member in members)) / sum(weights)
        for i in ranking:
            if members[i].inflight < ceil(share * weights[i]):
                return members[i]
        return members[ranking[0]]

    def _score(self, key: int, name: str, weight: float) -> float:
        seed = self._seeds.get(name)
        if seed is None:
            seed = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")
            self._seeds[name] = seed
        chance = ((_mixed(key ^ seed) >> 12) + 0.5) / (1 << 52)  # between 0 and 1, never either
        return -weight / log(chance)


def _mixed(bits: int) -> int:
    """Steele, Lea and Flood's SplitMix64 finaliser: each bit of the input moves half of the output's."""
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB & _MASK
    return bits ^ (bits >> 31)
