"""Facts of the cache: of whole answers, of shared calls, and of prompts that mean the same."""

from policies.record import record
from policies.service import CacheStatus, Call, Reply


@record
class CacheAsked:
    """A call passed its route's cache, which did as ``status`` says."""

    call: Call
    status: CacheStatus


@record
class CacheRefreshed:
    """A stale answer was asked for anew, beside the call that was given it.

    ``outcome`` is that of a call; ``reply`` is None where nobody answered.
    """

    call: Call
    outcome: str
    reply: Reply | None


@record
class CallCoalesced:
    """A call is answered with another one's answer: ``among`` is "process" or "replicas".

    ``leader`` is the call that fetches it, where that is in this process.
    """

    call: Call
    among: str
    leader: Call | None = None


@record
class CacheEvicted:
    """A tier of the cache made room for others; ``why`` is "full", "expired" or "purged"."""

    tier: str
    count: int
    why: str


@record
class CacheDropped:
    """A tier of the cache didn't take or give an answer.

    ``why`` is "corrupt", "oversized", "busy" (too much waits to be written), "full" or "unreachable".
    """

    tier: str
    why: str


@record
class PromptEmbedded:
    """An upstream was asked for the vector of a text that ``call`` caused, by itself or among others'.

    ``reply`` is the call's part of it, None where nobody answered; ``outcome`` is that of a call.
    """

    call: Call
    outcome: str
    reply: Reply | None


@record
class SemanticLooked:
    """An answer to a similar prompt was looked for.

    ``result`` is "hit", "explored" (near, and not certain enough), "far", "guarded" (near, and a guard says
    that it is another question), "unsuited" (a call of another kind), "expired" or "busy" (no vector).
    """

    call: Call
    result: str


@record
class SemanticVerified:
    """The stored answer for a similar prompt was compared with the true one; ``given`` if it was a hit."""

    call: Call
    similarity: float
    same: bool
    given: bool
