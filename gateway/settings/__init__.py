"""The configuration: `load(path)` for a file, `default_settings()` for none, ConfigError for a bad one."""

from gateway.settings.accounts import LocalProvider, Provider
from gateway.settings.load import default_settings, load
from gateway.settings.presets import Preset, presets
from gateway.settings.problems import ConfigError, Problem
from gateway.settings.routes import ASKED, Hedge, Model, Retries, Target, Timeouts
from gateway.settings.schema import Admin, Cors, DeclaredKey, Observability, Server, Settings

__all__ = [
    "ASKED",
    "Admin",
    "ConfigError",
    "Cors",
    "DeclaredKey",
    "Hedge",
    "LocalProvider",
    "Model",
    "Observability",
    "Preset",
    "Problem",
    "Provider",
    "Retries",
    "Server",
    "Settings",
    "Target",
    "Timeouts",
    "default_settings",
    "load",
    "presets",
]
