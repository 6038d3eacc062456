"""Who is calling: every key in memory, in step with the configuration and the database."""

import hmac
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase

from gateway.settings import DeclaredKey
from gateway.stores.keys import Key, KeyStore, Role, digest_of
from policies.errors import AuthenticationFailed, PermissionDenied


class Keyring:
    """Declared and stored keys by digest. A stored key's change is seen at the next ``refresh``."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._stored: dict[str, Key] = {}
        self._declared: dict[str, Key] = {}
        self._by_digest: dict[str, Key] = {}

    def declare(self, declared: Iterable[DeclaredKey], admin_secret: str | None) -> None:
        """Replace the keys that the configuration declares."""
        found = [
            Key(
                id=f"declared:{key.name}",
                name=key.name,
                digest=key.sha256,
                tenant=key.tenant,
                tier=key.tier,
                models=key.models,
                limits=key.limits,
            )
            for key in declared
        ]
        if admin_secret is not None:
            digest = digest_of(admin_secret)
            found.append(Key(id="declared:admin", name="admin", digest=digest, tenant="", role=Role.OWNER))
        self._declared = {key.digest: key for key in found}
        self._by_digest = self._stored | self._declared

    async def refresh(self) -> None:
        """Read the stored keys again."""
        self._stored = dict(pair for key in await self._store.list() for pair in _secrets(key))
        self._by_digest = self._stored | self._declared

    def identify(self, secret: str | None, wall_time: float, needed: Role = Role.CLIENT) -> Key:
        """The key of this secret, if its role covers ``needed``.

        Raises ``AuthenticationFailed`` or ``PermissionDenied``.

        The comparison takes the same time for any wrong secret: what is looked up is its digest.
        """
        if not secret:
            raise AuthenticationFailed(
                "No API key was sent. Send one as 'Authorization: Bearer KEY'.", code="missing_api_key"
            )
        digest = digest_of(secret)
        key = self._by_digest.get(digest)
        if key is None or not hmac.compare_digest(key.digest, digest):
            raise AuthenticationFailed("The API key is unknown. Check it, or ask your operator for another.")
        if key.expires is not None and key.expires <= wall_time:
            raise AuthenticationFailed("The API key has expired. Ask your operator for another.")
        require(key, needed)
        return key

    @staticmethod
    def allows(key: Key, model: str) -> bool:
        """Whether the key may use a model of this name."""
        return key.models is None or any(fnmatchcase(model, pattern) for pattern in key.models)


def _secrets(key: Key) -> Iterator[tuple[str, Key]]:
    """Each secret's digest and the key as it stands for it: one that was rotated away ends at its time."""
    yield key.digest, key
    if key.old_digest is not None and key.old_until is not None:
        until = key.old_until if key.expires is None else min(key.old_until, key.expires)
        yield key.old_digest, replace(key, digest=key.old_digest, expires=until)


def require(key: Key, needed: Role) -> None:
    """Raise ``PermissionDenied``, which names the role, where the key's doesn't cover ``needed``."""
    if key.role.covers(needed):
        return
    if needed is Role.CLIENT:
        raise PermissionDenied("This is a key of the admin API. /v1 is opened by a client's key.")
    where = " of the admin API" if key.role is Role.CLIENT else ""
    raise PermissionDenied(
        f"This needs a key{where} with the role {needed}; this one has the role {key.role}."
    )
