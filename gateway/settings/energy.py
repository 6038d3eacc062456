"""What a model's tokens take of energy, as data: bundled with its date, or in an account's own settings."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Self

from pydantic import Field, model_validator

from gateway.settings.base import Number, Section, Text
from gateway.settings.problems import ConfigError
from gateway.settings.source import read


class Energy(Section):
    """What is known better of a model than the bundled data; each key goes before what follows without it.

    `active` is in billions of parameters that run for a token. `input`, `cached_input` and `output` are
    joules a token at the server, `pue` what a data centre draws for each joule of its servers. `told` takes
    the answers' own word where they have one, as those of the bundled model's server do.
    """

    active: Number | None = Field(default=None, gt=0, le=1e5)
    input: Number | None = Field(default=None, ge=0, le=1e6)
    cached_input: Number | None = Field(default=None, ge=0, le=1e6)
    output: Number | None = Field(default=None, ge=0, le=1e6)
    pue: Number | None = Field(default=None, ge=1, le=10)
    told: bool = False

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("say at least one of active, input, cached_input, output, pue and told")
        return self


class ServerEnergy(Section):
    """One accelerator with its share of the server around it, as it serves many at once.

    `prefill` and `decode` are the parts of `peak_flops` that are reached on prompts and on answers, `cached`
    is what a prompt's token takes that the provider had in its cache, as a part of one that it hadn't.
    """

    peak_flops: Number = Field(gt=0)
    watts: Number = Field(gt=0)
    load: Number = Field(gt=0, le=1)
    prefill: Number = Field(gt=0, le=1)
    decode: Number = Field(gt=0, le=1)
    cached: Number = Field(ge=0, le=1)
    pue: Number = Field(ge=1)


class LocalEnergy(Section):
    """Joules a token of the bundled model, for a call whose model server couldn't tell."""

    input: Number = Field(ge=0)
    output: Number = Field(ge=0)


class EnergyData(Section):
    """gateway/providers/energy.yaml, which says at its top what each member means."""

    as_of: date
    sources: Mapping[Text, Text] = Field(min_length=1)
    server: ServerEnergy
    classes: Mapping[Text, Number] = Field(min_length=1)
    unknown: Text
    models: Mapping[Text, Number | Text]
    local: LocalEnergy

    @model_validator(mode="after")
    def _classes_are_known(self) -> Self:
        named = {size for size in (self.unknown, *self.models.values()) if isinstance(size, str)}
        if unknown := named - set(self.classes):
            raise ValueError(f"there is no such class: {', '.join(sorted(unknown))}")
        return self

    def billions(self, size: float | str) -> float:
        """Active parameters of a model that has this many, or is of this class."""
        return self.classes[size] if isinstance(size, str) else size


@cache
def energy_data() -> EnergyData:
    """The bundled data. ConfigError or ValidationError if the file is damaged."""
    file = files("gateway") / "providers" / "energy.yaml"
    source = read(file.read_text(encoding="utf-8"), environ={})
    if source.problems:
        raise ConfigError(list(source.problems.values()), str(file))
    return EnergyData.model_validate(source.data)
