"""When two calls are the same call: the SHA-256 of all that can change the answer, and nothing else.

Fields that nobody here knows are part of the key, since an upstream may know them. What is left out is
how the answer is delivered, who asked, and what the provider keeps of it. The canonical form is JSON
with sorted keys and no white space (after RFC 8785), where a number keeps its type: 1 and 1.0 are two calls.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from policies.service import Call

UNKEYED = frozenset(
    {
        "stream",
        "stream_options",
        "user",
        "metadata",
        "store",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
    }
)
"""Fields of OpenAI's that don't change what a model says."""

EVERYBODY = "*"
"""The scope of answers that all tenants share."""


def scope_of(call: Call, *, shared: bool) -> str:
    """Whose answers the call may be given: its tenant's, or everybody's where the route says so."""
    return EVERYBODY if shared else f"={call.tenant}"


def fingerprint(call: Call, *, scope: str, space: str) -> str:
    """The call's key, 64 hexadecimal digits. ``space`` stands for where the route leads."""
    fields = {name: value for name, value in call.body.items() if name not in UNKEYED}
    return sha256(canonical([scope, space, call.operation.value, fields])).hexdigest()


def canonical(value: list[Any] | Mapping[str, Any]) -> bytes:
    """The one JSON text of a value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
