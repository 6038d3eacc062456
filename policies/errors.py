"""The one hierarchy of errors, mapped to HTTP in one place at the edge (gateway/wire/errors.py).

GatewayError
├── CallerError             blame: caller
│   ├── InvalidRequest
│   │   ├── PayloadTooLarge
│   │   └── ContextTooLong
│   ├── AuthenticationFailed
│   ├── PermissionDenied
│   ├── ModelNotFound
│   ├── NotCached
│   ├── RouteNotFound
│   └── MethodNotAllowed
├── Throttled               blame: caller
│   ├── RateLimited
│   │   └── LimitTooSmall
│   ├── QuotaExhausted
│   └── Overloaded          blame: gateway
├── UpstreamError           blame: upstream
│   ├── UpstreamThrottled
│   │   ├── AttemptHeldBack
│   │   ├── UpstreamBusy
│   │   └── UpstreamQuotaExhausted
│   ├── UpstreamKeyRejected
│   ├── UpstreamUnavailable
│   ├── UpstreamTimeout
│   ├── UpstreamRejected
│   │   └── UpstreamUnsuited
│   │       └── UpstreamContextTooLong
│   └── StreamInterrupted
├── DeadlineExceeded        blame: gateway
├── NoHealthyUpstream       blame: upstream
├── ShuttingDown            blame: gateway
└── InternalError           blame: gateway
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

from policies.service import Allowance

Blame = Literal["caller", "gateway", "upstream"]


class GatewayError(Exception):
    """What every layer raises. The message is for the client: it says what to do, and names no secret.

    ``retryable`` tells whether the same call may succeed later or elsewhere; ``retry_after`` is the
    time to wait, in seconds, where it is known.
    """

    blame: ClassVar[Blame] = "gateway"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class CallerError(GatewayError):
    """The request itself is at fault. ``param`` names the field, ``code`` is OpenAI's word for the fault."""

    blame = "caller"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class InvalidRequest(CallerError):
    """The body can't be understood: malformed JSON, a wrong type, a missing field."""


class PayloadTooLarge(InvalidRequest):
    """The body is over ``server.max_body``."""


class ContextTooLong(InvalidRequest):
    """The prompt doesn't fit the model's context window."""


class AuthenticationFailed(CallerError):
    """No API key, or one that is unknown or expired."""


class PermissionDenied(CallerError):
    """The key is known and may not do this."""


class ModelNotFound(CallerError):
    """No configured model has this name, or the key may not use it."""


class NotCached(CallerError):
    """The caller wanted an answer only if it is in the cache, and it isn't."""


class RouteNotFound(CallerError):
    """No endpoint has this path."""


class MethodNotAllowed(CallerError):
    """The endpoint exists and has no such method."""


class Throttled(GatewayError):
    """The call isn't let in now: a limit is reached. Nothing was charged for it.

    ``allowances`` is what is left of each limit that applies, the binding one first.
    """

    blame: ClassVar[Blame] = "caller"
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        allowances: Sequence[Allowance] = (),
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.allowances = tuple(allowances)


class RateLimited(Throttled):
    """The caller sends more than its limits allow; ``retry_after`` is when this call fits."""


class LimitTooSmall(RateLimited):
    """A call that alone is larger than the limit: it never fits, however long it waits."""

    retryable = False


class QuotaExhausted(Throttled):
    """The day's or the month's quota is used up; ``retry_after`` is when the next one begins.

    Not for an SDK to try again within its seconds.
    """

    retryable = False


class Overloaded(Throttled):
    """The gateway can't take the call at the moment, whoever sends it."""

    blame = "gateway"


class UpstreamError(GatewayError):
    """One upstream failed one attempt. ``status`` is its HTTP status where there was one."""

    blame = "upstream"
    retryable = True

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.status = status


class UpstreamThrottled(UpstreamError):
    """The upstream says that we send too much: 429."""


class AttemptHeldBack(UpstreamThrottled):
    """A gate of ours didn't send the attempt: it says nothing new of the upstream."""


class UpstreamBusy(UpstreamThrottled):
    """The upstream says that it has too much to do: 503 or 529."""


class UpstreamQuotaExhausted(UpstreamThrottled):
    """The account's quota is used up, until its reset or until somebody pays."""


class UpstreamKeyRejected(UpstreamError):
    """The upstream refuses our key: 401, 402 or 403. The account is of no use until it is mended."""


class UpstreamUnavailable(UpstreamError):
    """The upstream is broken: no connection, a reset, 5xx, a blank or malformed 200, an error in a 200."""


class UpstreamTimeout(UpstreamError):
    """The upstream kept silent for longer than the route allows."""


class UpstreamRejected(UpstreamError):
    """The upstream refuses this call and would refuse it again: its answer is passed on.

    ``body`` is the upstream's own error object, of OpenAI's shape, where it sent one.
    """

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        status: int,
        body: dict[str, object] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status=status, retry_after=retry_after)
        self.body = body


class UpstreamUnsuited(UpstreamRejected):
    """The upstream can't take such a call at all, as it has no such model or endpoint; another may."""


class UpstreamContextTooLong(UpstreamUnsuited):
    """The prompt doesn't fit this upstream's context window; another's may be larger."""


class StreamInterrupted(UpstreamError):
    """A stream broke after part of the answer was delivered."""


class DeadlineExceeded(GatewayError):
    """The call took longer than ``timeouts.total``."""

    retryable = True


class NoHealthyUpstream(GatewayError):
    """Every upstream of the route was tried or is out; ``causes`` holds the failures in their order."""

    blame = "upstream"
    retryable = True

    def __init__(
        self, message: str, *, causes: Sequence[UpstreamError] = (), retry_after: float | None = None
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.causes = tuple(causes)


class ShuttingDown(GatewayError):
    """The gateway is stopping and its time to drain is over."""

    retryable = True


class InternalError(GatewayError):
    """A defect of the gateway; the log has the details under the request's id."""
