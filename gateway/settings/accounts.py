"""The accounts at providers that calls may be sent to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Discriminator, Field, SecretStr, Tag, field_validator, model_validator

from gateway.settings.base import Number, Secret, Section, Text, Whole
from gateway.settings.energy import Energy
from gateway.settings.presets import Preset, presets
from gateway.settings.prices import Price
from gateway.settings.problems import Fault, faulty, nearest
from gateway.settings.units import Tokens
from gateway.settings.upkeep import Probe, Schedule

LOCAL = "local"

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,2})?")


def _provider_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            "a provider's name is made of a-z, 0-9, '-' and '_', and begins with a letter or digit"
        )
    return name


def _base_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or any(character.isspace() for character in url):
        raise ValueError("must be a URL such as https://api.example.com/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not carry credentials; use api_key or headers")
    if parts.query or parts.fragment:
        raise ValueError("must not carry a query or a fragment")
    return url.rstrip("/")


def _header_name(name: str) -> str:
    if not _HEADER.fullmatch(name):
        raise ValueError("is not a header name")
    return name


def _device(device: str) -> str:
    if not _DEVICE.fullmatch(device):
        raise ValueError("must be auto, cpu, cuda or cuda:N")
    return device


ProviderName = Annotated[str, AfterValidator(_provider_name)]
HeaderName = Annotated[str, AfterValidator(_header_name)]


class Provider(Section):
    """One account at a remote provider.

    `weight` is its share among equals, relative to theirs; a lower `priority` goes first where a route
    balances by it. `max_concurrency` is never exceeded. Accounts that name the same `quota` share it.
    `bills_cancelled` None leaves it to the preset; `prices` and `context_windows` go before the preset's,
    and `energy` before the bundled data, by model's name or glob.
    `compress` is for what takes compressed requests.
    """

    preset: str
    base_url: Annotated[str, AfterValidator(_base_url)] | None = None
    api_key: Secret | None = None
    api_keys: Annotated[tuple[Secret, ...], Field(min_length=1)] | None = None
    weight: Number = Field(default=1.0, gt=0, allow_inf_nan=False)
    priority: Whole = Field(default=0, ge=0)
    max_concurrency: Whole | None = Field(default=None, ge=1)
    quota: Text | None = None
    bills_cancelled: bool | None = None
    context_windows: Mapping[Text, Tokens] = Field(default_factory=dict)
    prices: Mapping[Text, Price] = Field(default_factory=dict)
    energy: Mapping[Text, Energy] = Field(default_factory=dict)
    schedule: Schedule | None = None
    probe: Probe = Probe()
    status_page: Annotated[str, AfterValidator(_base_url)] | None = None
    headers: Mapping[HeaderName, Secret] = Field(default_factory=dict)
    compress: Literal["gzip", "br", "zstd"] | None = None

    @property
    def facts(self) -> Preset:
        """What is known about the provider, whoever's account it is."""
        return presets()[self.preset]

    @property
    def url(self) -> str:
        """The address that paths such as /chat/completions are appended to; no slash at its end."""
        url = self.base_url or self.facts.base_url
        if url is None:
            raise ValueError(f"preset {self.preset} has no address of its own")
        return url

    @property
    def credentials(self) -> tuple[SecretStr, ...]:
        """All keys of the account; empty where the provider asks for none."""
        if self.api_key is not None:
            return (self.api_key,)
        return self.api_keys or ()

    @field_validator("preset")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in presets():
            close = nearest(name, presets())
            known = "" if close else f"; there are {', '.join(sorted(presets()))}"
            raise faulty([Fault(f"there is no such preset{known}", close)])
        return name

    @model_validator(mode="after")
    def _complete(self) -> Provider:
        faults = []
        if self.base_url is None and self.facts.base_url is None:
            faults.append(Fault(f"missing; preset {self.preset} has no address of its own", at=("base_url",)))
        if self.api_key is not None and self.api_keys is not None:
            faults.append(Fault("give api_key or api_keys, not both", at=("api_keys",)))
        if not self.credentials and self.base_url is None and self.facts.auth != "none":
            faults.append(Fault(f"missing; {self.preset} asks for a key at its own address", at=("api_key",)))
        if faults:
            raise faulty(faults)
        return self


class LocalProvider(Section):
    """The bundled model server, which the gateway starts and watches. `threads` None leaves it to the server.

    `watts` is what a core, or its GPU, draws while it computes, for where no counter tells the energy.
    """

    # As an upstream it is an account like any other.
    weight: ClassVar[float] = 1.0
    priority: ClassVar[int] = 100
    max_concurrency: ClassVar[int | None] = None
    quota: ClassVar[str | None] = None
    schedule: ClassVar[Schedule | None] = None
    probe: ClassVar[Probe] = Probe()
    status_page: ClassVar[str | None] = None

    preset: Literal["local"]
    profile: Literal["exact", "mla256", "sparse"] = "exact"
    delta: str | None = None
    device: Annotated[str, AfterValidator(_device)] = "auto"
    threads: Annotated[Whole, Field(ge=1)] | None = None
    watts: Annotated[Number, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _check_delta(self) -> Self:
        if self.delta is not None and self.profile != "sparse":
            raise ValueError("delta, a file that distill made, belongs to the profile sparse alone")
        return self


def _kind(value: Any) -> str:
    preset = value.get("preset") if isinstance(value, Mapping) else getattr(value, "preset", None)
    return LocalProvider.__name__ if preset == LOCAL else Provider.__name__


Account = Annotated[
    Annotated[Provider, Tag("Provider")] | Annotated[LocalProvider, Tag("LocalProvider")],
    Discriminator(_kind),
]
