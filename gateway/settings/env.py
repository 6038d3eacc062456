"""Environment variables inside configuration values, so that secrets stay out of the file.

`${VAR}` must be set; `${VAR:-default}` falls back when VAR is unset or empty, as in a shell; `$$` is a dollar
sign. A `$` before anything else stands for itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_DOLLAR = re.compile(r"\$\$|\$\{(?P<inside>[^}]*)\}|\$\{")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)


class BadReference(ValueError):
    """A reference to the environment that cannot be resolved; the message names the variable, no value."""


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Return `text` with its references replaced; BadReference when one is malformed or unset."""
    return _DOLLAR.sub(lambda match: _replacement(match, environ), text)


def _replacement(match: re.Match[str], environ: Mapping[str, str]) -> str:
    if match[0] == "$$":
        return "$"
    inside = _INSIDE.fullmatch(match["inside"] or "")
    if inside is None:
        raise BadReference("write ${NAME}, ${NAME:-default}, or $$ for a dollar sign")
    name, default = inside["name"], inside["default"]
    if default is not None:
        return environ.get(name) or default
    if name not in environ:
        raise BadReference(f"environment variable {name} is not set; set it or write ${{{name}:-default}}")
    return environ[name]
