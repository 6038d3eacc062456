"""The configuration: `load(path)` for a file, `default_settings()` for none, ConfigError for a bad one."""

from gateway.settings.accounts import LocalProvider, Provider
from gateway.settings.differences import differences
from gateway.settings.limits import UTC, Amount, Limits
from gateway.settings.load import default_settings, load
from gateway.settings.presets import Preset, presets
from gateway.settings.problems import ConfigError, Problem
from gateway.settings.routes import ASKED, Hedge, Model, Retries, Target, Timeouts
from gateway.settings.schema import Admin, Cors, DeclaredKey, Ledger, Observability, Server, Settings
from gateway.settings.store import MEMORY
from gateway.settings.tiers import DEFAULT_TIER, Queue, Tenant, Tier

__all__ = [
    "ASKED",
    "DEFAULT_TIER",
    "MEMORY",
    "UTC",
    "Admin",
    "Amount",
    "ConfigError",
    "Cors",
    "DeclaredKey",
    "Hedge",
    "Ledger",
    "Limits",
    "LocalProvider",
    "Model",
    "Observability",
    "Preset",
    "Problem",
    "Provider",
    "Queue",
    "Retries",
    "Server",
    "Settings",
    "Target",
    "Tenant",
    "Tier",
    "Timeouts",
    "default_settings",
    "differences",
    "load",
    "presets",
]
