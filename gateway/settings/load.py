"""From a file to Settings, or to everything that is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from gateway.settings.explain import explain
from gateway.settings.problems import ConfigError, Problem
from gateway.settings.schema import Settings
from gateway.settings.source import Source, read


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the configuration at `path`; ConfigError lists all its problems, an unreadable file included."""
    file = str(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError([Problem(None, "", f"cannot be read: {error.strerror}")], file) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(line, "", "is not UTF-8 text")], file) from None
    source = read(text, environ)
    outcome = _validate(source)
    if isinstance(outcome, Settings) and not source.problems:
        return outcome
    found = [] if isinstance(outcome, Settings) else outcome
    told = {problem.path for problem in source.problems.values()}
    problems = [*source.problems.values(), *(problem for problem in found if problem.path not in told)]
    raise ConfigError(sorted(problems, key=lambda problem: problem.line or 0), file)


def default_settings() -> Settings:
    """Return what runs without a file: the bundled model, on loopback, with SQLite."""
    return Settings()


def _validate(source: Source) -> Settings | list[Problem]:
    if source.data is None:
        return Settings()
    if not isinstance(source.data, dict):
        return [Problem(source.line(()), "", "must be a mapping of sections such as server and models")]
    given = {section: value for section, value in source.data.items() if value is not None}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        return list(explain(error, Settings, source))
