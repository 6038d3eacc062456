"""Who asks, as the gateway says in headers that no client of the gateway can set."""

from dataclasses import dataclass

from starlette.requests import Request

from local_backend.serve import errors

TENANT = "x-tidegate-tenant"
PRIORITY = "x-tidegate-priority"
_MAX_TENANT = 256
_MOST = 1000


@dataclass(frozen=True)
class Caller:
    """Cached prefixes are shared within a tenant alone; a lower priority goes first."""

    tenant: str = ""
    priority: int = 0


def read_caller(request: Request) -> Caller:
    """The caller that the headers name. Raises ApiError when they can't be meant so."""
    tenant = request.headers.get(TENANT, "")
    if len(tenant) > _MAX_TENANT:
        raise errors.invalid_request(f"{TENANT} is longer than {_MAX_TENANT} characters", TENANT)
    text = request.headers.get(PRIORITY, "0")
    try:
        priority = int(text)
    except ValueError:
        priority = _MOST + 1
    if abs(priority) > _MOST:
        raise errors.invalid_request(f"{PRIORITY} is not a number from -{_MOST} to {_MOST}", PRIORITY)
    return Caller(tenant, priority)
