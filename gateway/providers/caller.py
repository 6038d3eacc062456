"""Who asks, told to the bundled model server alone: it keeps tenants' prefixes apart and higher tiers first.

Other upstreams are not told, since whom we serve is none of their business.
"""

import hashlib
from collections.abc import Callable
from urllib.parse import quote

from policies.service import Call

_LONGEST_TENANT = 256
_MOST = 1000

CallerHeaders = Callable[[Call], dict[str, str]]


def caller_headers(weight_of: Callable[[str], float]) -> CallerHeaders:
    """The headers that name a call's tenant and its priority, from what its tier weighs; lower goes first."""

    def headers(call: Call) -> dict[str, str]:
        tenant = quote(call.tenant, safe="")
        if len(tenant) > _LONGEST_TENANT:
            tenant = hashlib.sha256(call.tenant.encode()).hexdigest()
        priority = -min(_MOST, round(weight_of(call.tier)))
        return {"x-tidegate-tenant": tenant, "x-tidegate-priority": str(priority)}

    return headers
