"""What was purged: rules that outlive the entries, since no tier is searched by tenant or model at once.

An answer is gone if it was asked for before a purge that covers it. So one that was under way then is gone as
well when it comes, and every replica forgets by reading the rules, kept where all of them look.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from policies.cache.answer import CachedAnswer

_LATENESS = 300.0
"""Seconds between a purge and its being written down, by clocks that differ."""


class Purge(NamedTuple):
    """Answers of a tenant, of a model, under a key, or of all of these that are named; of all if none is.

    ``at`` is in seconds since the epoch.
    """

    at: float
    tenant: str | None = None
    model: str | None = None
    key: str | None = None

    @property
    def everything(self) -> bool:
        """Whether nothing is left."""
        return self[1:] == (None, None, None)

    def covers(self, answer: CachedAnswer) -> bool:
        """Whether the answer is to be forgotten."""
        return (
            answer.created <= self.at
            and self.tenant in {None, answer.scope[1:]}
            and self.model in {None, answer.model}
            and self.key in {None, answer.key}
        )


class PurgeBook(Protocol):
    """Where all replicas write purges and read them."""

    async def add(self, purge: Purge, horizon: float) -> None:
        """Write one down, and forget those from before ``horizon``: nothing that they cover is left."""
        ...

    async def read(self, since: float) -> list[Purge]:
        """Those from ``since`` on."""
        ...


class Purges:
    """The purges as one worker knows them."""

    def __init__(self) -> None:
        self._known: dict[tuple[str | None, str | None, str | None], float] = {}
        self._newest = 0.0

    @property
    def since(self) -> float:
        """From when on there may be some that aren't known."""
        return self._newest - _LATENESS

    def learn(self, purges: Iterable[Purge], horizon: float) -> list[Purge]:
        """Take these in, and forget those from before ``horizon``; which are news."""
        known = self._known
        news = [purge for purge in purges if purge.at > known.get(purge[1:], horizon)]
        if news:
            news_by_cover = {purge[1:]: purge.at for purge in sorted(news)}
            self._known = {what: at for what, at in known.items() if at >= horizon} | news_by_cover
            self._newest = max(self._newest, *news_by_cover.values())
        return news

    def covers(self, answer: CachedAnswer) -> bool:
        """Whether an answer was purged."""
        known = self._known
        if not known:
            return False
        tenant = answer.scope[1:]
        return any(
            answer.created <= known.get((a, b, c), -1.0)
            for a in (None, tenant)
            for b in (None, answer.model)
            for c in (None, answer.key)
        )
