import re
from pathlib import Path

import pytest

from gateway.settings import Settings, load
from gateway.settings.accounts import LocalProvider, Provider
from gateway.settings.caching import Cache, ModelCache
from gateway.settings.energy import Energy
from gateway.settings.prices import Price, PriceWindow
from gateway.settings.routes import Model, Retries, Timeouts
from gateway.settings.schema import Admin, DeclaredKey, Ledger, Observability, Server
from gateway.settings.tiers import Queue, Tenant, Tier
from gateway.settings.upkeep import Probe, Window

PAGE = (Path(__file__).parents[3] / "docs/configuration.md").read_text(encoding="utf-8")
TABLES = re.findall(r"^\| key \| default \| meaning \|\n\|---\|---\|---\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)

# The tables in the page's order: the section, and the least that makes one.
SECTIONS = [
    (Server, {}),
    (Admin, {}),
    (Provider, {"preset": "vllm"}),
    (Window, {"from": "01:00", "to": "02:00"}),
    (Probe, {}),
    (Price, {"input": 1, "output": 2}),
    (PriceWindow, {"from": "01:00", "to": "02:00", "factor": 0.5}),
    (Energy, {"active": 8}),
    (LocalProvider, {"preset": "local"}),
    (Model, {"route": ["a/b"]}),
    (ModelCache, {}),
    (Cache, {}),
    (Tier, {}),
    (Tenant, {}),
    (DeclaredKey, {"name": "n", "key": "k", "tenant": "t"}),
    (Ledger, {}),
    (Observability, {}),
]


GROUPS = {Model: {"timeouts": Timeouts, "retries": Retries}, Tier: {"queue": Queue}}


def rows(table):
    return dict(re.findall(r"^\| `([\w.]+)` \| (.*?) \|", table, re.MULTILINE))


def test_the_example_works(tmp_path):
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "tidegate.yaml"
    file.write_text(example)
    settings = load(file, {name: f"secret-of-{name}" for name in re.findall(r"\$\{(\w+)\}", example)})
    assert set(settings.models) == {"chat", "gpt-*"}


def test_every_section_has_its_heading():
    assert set(re.findall(r"^## `(\w+)`", PAGE, re.MULTILINE)) == set(Settings.model_fields)


@pytest.mark.parametrize(("at", "section", "least"), [(at, *each) for at, each in enumerate(SECTIONS)])
def test_every_key_is_there_with_its_default(at, section, least):
    told = rows(TABLES[at])
    keys = {field.alias or name for name, field in section.model_fields.items()}
    if section is LocalProvider:
        keys -= {"preset"}
    groups = GROUPS.get(section, {})
    keys -= set(groups)
    keys |= {f"{name}.{key}" for name, group in groups.items() for key in group.model_fields}
    assert set(told) == keys
    usual = section.model_validate(least)
    for key, default in told.items():
        if default == "required":
            assert key in least
        elif default.startswith("`"):
            group, _, name = key.rpartition(".")
            given = {group: {name: default.strip("`")}} if group else {name: default.strip("`")}
            assert section.model_validate({**least, **given}) == usual
