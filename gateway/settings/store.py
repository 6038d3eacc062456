"""Where the counts of limits live."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, SecretStr

MEMORY = "memory"

_SCHEMES = (
    "redis",
    "rediss",
    "unix",
    "redis+cluster",
    "rediss+cluster",
    "redis+sentinel",
    "rediss+sentinel",
)


def _store(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    if text == MEMORY:
        return url
    try:
        parts = urlsplit(text)
        named = bool(parts.path) if parts.scheme == "unix" else bool(parts.netloc.rpartition("@")[2])
    except ValueError:
        named = False
    if not named or parts.scheme not in _SCHEMES:
        schemes = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
        raise ValueError(f"must be memory, or a URL that begins with one of {schemes}")
    if parts.scheme.endswith("+sentinel") and not parts.path.strip("/"):
        raise ValueError("must name the master: redis+sentinel://host:26379/mymaster")
    return url


StoreUrl = Annotated[SecretStr, AfterValidator(_store)]
