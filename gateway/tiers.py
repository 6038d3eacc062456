"""The tiers and tenants that are in force: those of the file, and over them those of the database."""

from collections.abc import Mapping
from types import MappingProxyType

from gateway.settings import DEFAULT_TIER, Tenant, Tier

_NOBODY = Tenant()


class Tiers:
    """A stored tier or tenant takes the place of a declared one of the same name until it is deleted.

    ``revision`` grows with every change, so that what was worked out from them can be known to be old.
    """

    def __init__(self) -> None:
        self._declared: Mapping[str, Tier] = {}
        self._declared_tenants: Mapping[str, Tenant] = {}
        self._stored: Mapping[str, Tier] = {}
        self._stored_tenants: Mapping[str, Tenant] = {}
        self.revision = 0
        self._combine()

    def declare(self, tiers: Mapping[str, Tier], tenants: Mapping[str, Tenant]) -> None:
        """Replace those that the configuration declares."""
        self._declared, self._declared_tenants = tiers, tenants
        self._combine()

    def store(self, tiers: Mapping[str, Tier], tenants: Mapping[str, Tenant]) -> None:
        """Replace those that the database holds."""
        self._stored, self._stored_tenants = tiers, tenants
        self._combine()

    @property
    def tiers(self) -> Mapping[str, Tier]:
        """Every tier by its name, ``default`` always among them, each with the share that it gets."""
        return MappingProxyType(self._tiers)

    @property
    def tenants(self) -> Mapping[str, Tenant]:
        """The tenants of whom more is known than their name."""
        return MappingProxyType(self._tenants)

    def tier(self, name: str) -> Tier:
        """The tier of this name; one that nobody defined, or no more, is as ``default`` is."""
        return self._tiers.get(name) or self._tiers[DEFAULT_TIER]

    def tenant(self, name: str) -> Tenant:
        """The tenant of this name; one that nobody defined has no limits of its own."""
        return self._tenants.get(name, _NOBODY)

    def _combine(self) -> None:
        self._tiers = _shared({DEFAULT_TIER: Tier(), **self._declared, **self._stored})
        self._tenants = {**self._declared_tenants, **self._stored_tenants}
        self.revision += 1


def _shared(tiers: Mapping[str, Tier]) -> dict[str, Tier]:
    """Give those without a share equal parts of what the others leave of the whole."""
    given = sum(tier.share for tier in tiers.values() if tier.share is not None)
    without = sum(tier.share is None for tier in tiers.values())
    rest = max(0.0, 1.0 - given) / without if without else 0.0
    return {
        name: tier.model_copy(update={"share": rest}) if tier.share is None else tier
        for name, tier in tiers.items()
    }
