"""The sections of a configuration file, with their defaults.

Only what this release does has a key. A section that comes later is a field of Settings and a Section class.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator

from gateway.settings.accounts import LOCAL, Account, LocalProvider, ProviderName
from gateway.settings.base import Secret, Section, Text, Whole
from gateway.settings.caching import Cache
from gateway.settings.collector import CollectorUrl
from gateway.settings.database import DatabaseUrl
from gateway.settings.limits import Limits
from gateway.settings.problems import Fault, KeyPath, faulty, nearest
from gateway.settings.routes import Model, Target
from gateway.settings.semantic import embeddings_fault
from gateway.settings.store import MEMORY, StoreUrl
from gateway.settings.tiers import DEFAULT_TIER, Tenant, Tier
from gateway.settings.units import Duration, Period, Size

LOCAL_MODEL = "smollm2-135m-moe"

_HASHED = "sha256:"
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-fA-F:]+\](:\d{1,5})?")
_HEX = re.compile(r"[0-9a-f]{64}")


def _origin(origin: str) -> str:
    if origin != "*" and not _ORIGIN.fullmatch(origin):
        raise ValueError("must be '*' or an origin such as https://app.example.com, with no path")
    return origin


def _key(secret: Secret) -> Secret:
    text = secret.get_secret_value()
    if text.startswith(_HASHED) and not _HEX.fullmatch(text.removeprefix(_HASHED)):
        raise ValueError("sha256: must be followed by 64 lower-case hexadecimal digits")
    return secret


class Cors(Section):
    """The web origins whose pages may call the gateway."""

    origins: Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], Field(min_length=1)]


class Server(Section):
    """How the gateway listens: sizes in bytes, times in seconds.

    `drain` is how long running streams may go on after SIGTERM; `ping` is how often a waiting stream
    hears a comment; `poll` is how often each worker looks for what was changed at others.
    """

    host: Text = "127.0.0.1"
    port: Whole = Field(default=8080, ge=0, le=65535)
    workers: Whole = Field(default=1, ge=1)
    max_body: Size = Field(default=32 * 2**20, gt=0)
    drain: Duration = 30.0
    ping: Duration = Field(default=10.0, gt=0)
    poll: Duration = Field(default=1.0, gt=0)
    cors: Cors | None = None


class Admin(Section):
    """The key of the admin API; None leaves it to the gateway to make one on its first start."""

    key: Secret | None = None


class DeclaredKey(Section):
    """A client's key that lives in the file; `models` None allows all, else names or globs.

    Its `limits` are its own, beside those of its tenant and its tier.
    """

    name: Text
    key: Annotated[Secret, AfterValidator(_key)]
    tenant: Text
    tier: Text = DEFAULT_TIER
    models: tuple[Text, ...] | None = None
    limits: Limits = Limits()

    @property
    def sha256(self) -> str:
        """The key's SHA-256 in lower-case hex, whichever way the key was written."""
        text = self.key.get_secret_value()
        if text.startswith(_HASHED):
            return text.removeprefix(_HASHED)
        return hashlib.sha256(text.encode()).hexdigest()


class Ledger(Section):
    """The usage ledger: its rows go after `keep` seconds, its daily sums stay."""

    keep: Period = Field(default=90 * 86400.0, gt=0)


class Observability(Section):
    """What the gateway tells about itself; `otlp` is where traces go, None sends none."""

    metrics: bool = True
    access_log: Literal["json", "off"] = "json"
    otlp: CollectorUrl = None


def _bundled_providers() -> Mapping[str, Account]:
    return {LOCAL: LocalProvider(preset="local")}


def _bundled_models() -> Mapping[str, Model]:
    return {LOCAL_MODEL: Model(route=((Target(LOCAL, LOCAL_MODEL),),))}


class Settings(Section):
    """A whole configuration. Without providers and models it serves the bundled model."""

    server: Server = Server()
    store: StoreUrl = SecretStr(MEMORY)
    database: DatabaseUrl = SecretStr("sqlite:///tidegate.db")
    cache: Cache = Cache()
    admin: Admin = Admin()
    providers: Mapping[ProviderName, Account] = Field(default_factory=_bundled_providers)
    tiers: Mapping[Text, Tier] = Field(default_factory=dict)
    tenants: Mapping[Text, Tenant] = Field(default_factory=dict)
    models: Mapping[Text, Model] = Field(default_factory=_bundled_models)
    keys: tuple[DeclaredKey, ...] = ()
    ledger: Ledger = Ledger()
    observability: Observability = Observability()

    @field_validator("models")
    @classmethod
    def _routed(cls, models: Mapping[str, Model], info: ValidationInfo) -> Mapping[str, Model]:
        providers = info.data.get("providers")
        if providers is None:  # already complained about
            return models
        faults = [
            Fault(
                f"provider '{target.provider}' is not declared under providers",
                nearest(target.provider, providers),
                (name, "route", at, among),
            )
            for name, model in models.items()
            for at, step in enumerate(model.route)
            for among, target in enumerate(step)
            if target.provider not in providers
        ]
        faults += [
            fault
            for name, model in models.items()
            if model.hedge is not None
            for place, tier in enumerate(model.hedge.tiers)
            for fault in _undeclared(tier, info, (name, "hedge", "tiers", place))
        ]
        if faults:
            raise faulty(faults)
        return models

    @field_validator("tenants")
    @classmethod
    def _tiered(cls, tenants: Mapping[str, Tenant], info: ValidationInfo) -> Mapping[str, Tenant]:
        faults = [
            fault
            for name, tenant in tenants.items()
            if tenant.tier is not None
            for fault in _undeclared(tenant.tier, info, (name, "tier"))
        ]
        if faults:
            raise faulty(faults)
        return tenants

    @field_validator("keys")
    @classmethod
    def _distinct(cls, keys: tuple[DeclaredKey, ...], info: ValidationInfo) -> tuple[DeclaredKey, ...]:
        faults: list[Fault] = []
        for at, key in enumerate(keys):
            faults += _undeclared(key.tier, info, (at, "tier"))
            if any(key.name == earlier.name for earlier in keys[:at]):
                faults.append(Fault(f"another key is named '{key.name}' already", at=(at, "name")))
            if any(key.sha256 == earlier.sha256 for earlier in keys[:at]):
                faults.append(Fault("the same key is declared above", at=(at, "key")))
        if faults:
            raise faulty(faults)
        tenants: Mapping[str, Tenant] = info.data.get("tenants", {})
        return tuple(_with_tier(key, tenants.get(key.tenant)) for key in keys)

    @model_validator(mode="after")
    def _serving(self) -> Settings:
        if "models" not in self.model_fields_set and not isinstance(self.providers.get(LOCAL), LocalProvider):
            raise faulty([Fault("missing; say which models clients may ask for", at=("models",))])
        if any(model.cache and model.cache.semantic for model in self.models.values()):
            fault = embeddings_fault(self.cache.embeddings, self.providers)
            if fault is not None:
                raise faulty([fault])
        return self


def _undeclared(tier: str, info: ValidationInfo, at: KeyPath) -> list[Fault]:
    """The fault of naming a tier that isn't declared. A file without tiers leaves them to the admin API."""
    tiers: Mapping[str, Tier] = info.data.get("tiers", {})
    if not tiers or tier in tiers or tier == DEFAULT_TIER:
        return []
    return [Fault(f"tier '{tier}' is not declared under tiers", nearest(tier, tiers), at)]


def _with_tier(key: DeclaredKey, tenant: Tenant | None) -> DeclaredKey:
    """The key with its tenant's tier where it names none."""
    if tenant is None or tenant.tier is None or "tier" in key.model_fields_set:
        return key
    return key.model_copy(update={"tier": tenant.tier})
