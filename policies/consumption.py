"""What a call used, even where nobody told: one rule for the limits that charge it and the ledger.

An upstream's own count is taken as it is. Where there is none, since the client left, the stream broke or
the upstream doesn't count, what was delivered is counted by its characters.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from policies.errors import GatewayError
from policies.service import CANCELLED, Call, Estimate, Reply, Usage

_CHARACTERS_PER_TOKEN = 4
_NOTHING = Usage()


class Consumption(NamedTuple):
    """``estimated`` tells that the tokens are nobody's count."""

    usage: Usage
    estimated: bool = False


def consumption(
    call: Call,
    reply: Reply | None,
    failure: GatewayError | None,
    *,
    characters: int,
    estimate: Callable[[Call], Estimate | Usage],
) -> Consumption:
    """What a call that is over used, of whose answer so many ``characters`` were delivered.

    Nothing, if nobody answered it, if it never was sent, if the cache had the answer, or if its attempt
    goes on for another call, which shares it and pays. Leaving before the first content costs the prompt.
    """
    if reply is None:
        if failure is not None or not any(attempt.outcome == CANCELLED for attempt in call.attempts):
            return Consumption(_NOTHING)
        return Consumption(Usage(input=estimate(call).input), estimated=True)
    if reply.cached is not None and reply.cached.served:
        return Consumption(_NOTHING)
    if reply.usage is not None:
        return Consumption(reply.usage)
    guess = estimate(call)
    if not reply.stream and reply.complete:
        return Consumption(Usage(guess.input, guess.output), estimated=True)
    output = math.ceil(characters / _CHARACTERS_PER_TOKEN)
    return Consumption(Usage(input=guess.input, output=output), estimated=True)
