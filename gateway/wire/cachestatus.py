"""Headers that tell what the cache did: x-tidegate-cache, and Age as in RFC 9111."""

from policies.service import CacheStatus


def headers(status: CacheStatus, fingerprint: str | None) -> list[tuple[bytes, bytes]]:
    """The headers of one reply; ``fingerprint`` is its call's, by which its answer can be purged."""
    told = [(b"x-tidegate-cache", status.state.value.encode())]
    if fingerprint is not None:
        told.append((b"x-tidegate-cache-key", fingerprint.encode()))
    if status.served:
        told.append((b"age", b"%d" % status.age))
    if status.similarity is not None:
        told.append((b"x-tidegate-similarity", b"%.4f" % status.similarity))
    return told
