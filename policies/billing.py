"""Billing: which attempts of a call its providers charge for, and which ones made them work.

A hedge opens two attempts and keeps one (Dean and Barroso, "The Tail at Scale", CACM 2013). Whether the
other one costs anything is the provider's affair: some stop their work and their bill when a stream is
cancelled, others finish the answer and bill it. Failed attempts are charged to nobody, and those that had
been begun have used energy all the same.
"""

from collections.abc import Callable, Iterable

from policies.errors import UpstreamTimeout
from policies.service import CANCELLED, LOST, OK, Attempt

_GIVEN_UP = frozenset({CANCELLED, LOST, UpstreamTimeout.__name__})


def billed_attempts(attempts: Iterable[Attempt], bills_cancelled: Callable[[str], bool]) -> list[Attempt]:
    """The attempts that cost something; ``bills_cancelled`` tells it of an account, by ``Attempt.upstream``.

    The usage of the one that answered is its reply's. A loser's usage nobody tells: its prompt is the
    call's, its answer at most as long as the call allows.
    """
    return [attempt for attempt in attempts if _billed(attempt, bills_cancelled)]


def worked(attempt: Attempt) -> bool:
    """Whether its upstream probably computed the prompt: it began to answer, or we gave it up before it did.

    One that refused, or that broke before its first token, is taken to have done nothing.
    """
    return attempt.first_event is not None or attempt.outcome in _GIVEN_UP


def _billed(attempt: Attempt, bills_cancelled: Callable[[str], bool]) -> bool:
    if attempt.outcome == OK:
        return True
    if attempt.outcome == CANCELLED and attempt.first_event is not None:
        return True  # the client had part of the answer
    return attempt.outcome in {CANCELLED, LOST} and bills_cancelled(attempt.upstream)
