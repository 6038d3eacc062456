"""Whom to load."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit

CHATS = "/chat/completions"


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask, and how patiently."""

    url: str
    model: str
    key: str | None = field(repr=False)
    timeout: float
    obey_retry_after: bool = False

    @property
    def headers(self) -> dict[str, str]:
        """What each request carries."""
        return headers(self.key)


def headers(key: str | None) -> dict[str, str]:
    """The header that carries a key."""
    return {} if key is None else {"authorization": f"Bearer {key}"}


def api_of(url: str) -> str:
    """The API's base for what people write: the server, its /v1, or the whole address of the chats.

    ValueError for what is no address.
    """
    base = url.rstrip("/").removesuffix(CHATS)
    if not _is_address(base):
        raise ValueError(f"{url}: write the server's address, such as http://127.0.0.1:8080")
    return base if urlsplit(base).path.strip("/") else f"{base}/v1"


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        return parts.scheme in {"http", "https"} and bool(host) and parts.port != 0
    except ValueError:  # brackets, a port or a part of a name that can't be
        return False
