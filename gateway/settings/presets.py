"""What is known about each provider, whoever's account it is: data in gateway/providers/presets.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from pydantic import Field, TypeAdapter

from gateway.settings.base import Section, Text
from gateway.settings.prices import Prices
from gateway.settings.problems import ConfigError
from gateway.settings.source import read
from gateway.settings.units import Duration, Tokens

Auth = Literal["bearer", "api-key", "none"]
Operation = Literal["chat", "completions", "embeddings"]


class Prefill(Section):
    """How to have an answer continued whose beginning is the last assistant message.

    `message` is merged into that message, `body` into the request, and `base_url`, where given, replaces
    the account's address. Without any of these the provider continues a final assistant message unasked.
    """

    message: Mapping[str, Any] = Field(default_factory=dict)
    body: Mapping[str, Any] = Field(default_factory=dict)
    base_url: Text | None = None


class KeepAlive(Section):
    """What a provider sends while a request waits for its turn, and for how many seconds it may wait."""

    comments: bool = False
    blank_lines: bool = False
    max_wait: Duration | None = None


class ContextWindows(Section):
    """Tokens that prompt and answer may have together, by model's name or glob; since when, and says who."""

    as_of: date
    source: Text
    models: Mapping[Text, Tokens] = Field(min_length=1)


class Preset(Section):
    """One provider. gateway/providers/presets.yaml says at its top what each member means."""

    docs: Text
    base_url: Text | None = None
    auth: Auth = "bearer"
    key_env: Text | None = None
    operations: frozenset[Operation] = Field(min_length=1)
    stream_usage: bool
    prefill: Prefill | None = None
    keep_alive: KeepAlive = KeepAlive()
    bills_cancelled: bool = True
    rename: Mapping[str, str] = Field(default_factory=dict)
    tells_cost: bool = False
    context_windows: ContextWindows | None = None
    prices: Prices | None = None


@cache
def presets() -> Mapping[str, Preset]:
    """Return every preset by name. ConfigError or ValidationError if the bundled file is damaged."""
    file = files("gateway") / "providers" / "presets.yaml"
    source = read(file.read_text(encoding="utf-8"), environ={})
    if source.problems:
        raise ConfigError(list(source.problems.values()), str(file))
    return TypeAdapter(dict[str, Preset]).validate_python(source.data)
