"""Which answers may be given again, and for how long. Freshness follows RFC 9111 and RFC 5861.

A caller who samples wants another answer each time, and an answer that was given to somebody else
before would be a wrong one. So by default only calls that ask for the same answer each time take part:
temperature 0, an explicit seed, embeddings. A route can open its cache to all calls, and so can a caller
to its own, by saying ``Cache-Control: max-age``.
"""

from dataclasses import dataclass
from enum import Enum, auto

from policies.cache.directives import Directives
from policies.errors import GatewayError
from policies.service import Call, Operation
from policies.splice import repeatable


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """``exact`` is how long an answer is fresh, in seconds.

    After that it is given for ``stale_while_revalidate`` more while a new one is fetched, and for
    ``stale_if_error`` where none can be had. ``always`` admits calls that sample, ``shared`` gives one
    tenant's answers to another, ``pace`` is the pause between the parts of a replayed stream.
    """

    exact: float = 3600.0
    stale_while_revalidate: float = 600.0
    stale_if_error: float = 86400.0
    always: bool = False
    shared: bool = False
    pace: float = 0.0

    def __post_init__(self) -> None:
        if self.exact <= 0:
            raise ValueError("cache.exact must be above 0 s")
        if min(self.stale_while_revalidate, self.stale_if_error, self.pace) < 0:
            raise ValueError("cache: no time may be below 0 s")

    @property
    def keep(self) -> float:
        """How long an answer is of any use, in seconds."""
        return self.exact + max(self.stale_while_revalidate, self.stale_if_error)


class Freshness(Enum):
    """What an answer may be used for."""

    FRESH = auto()
    REVALIDATE = auto()
    ON_ERROR = auto()
    GONE = auto()


def freshness(age: float, options: CacheOptions, directives: Directives) -> Freshness:
    """What an answer of ``age`` seconds may be used for."""
    if directives.max_age is not None and age > directives.max_age:
        return Freshness.GONE
    if age <= options.exact:
        return Freshness.FRESH
    if age <= options.exact + options.stale_while_revalidate:
        return Freshness.REVALIDATE
    if age <= options.exact + options.stale_if_error:
        return Freshness.ON_ERROR
    return Freshness.GONE


def may_reuse(call: Call, options: CacheOptions, directives: Directives) -> bool:
    """Whether the call may be answered from the cache, or its answer stored."""
    if directives.no_store:
        return False
    settled = call.operation is Operation.EMBEDDING or repeatable(call)
    return settled or options.always or directives.invites


def excuses_stale(error: GatewayError) -> bool:
    """Whether an old answer is better than this error: where asking again later could help."""
    return error.retryable and error.blame != "caller"
