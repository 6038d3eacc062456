"""Where keys, tiers, tenants, usage and the audit are kept."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from pydantic import AfterValidator, SecretStr

_OPTIONS = {"host", "port", "sslmode"}
_SSL_MODES = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}


def _database(url: SecretStr) -> SecretStr:
    text = url.get_secret_value()
    if text.startswith("sqlite:///"):
        return url
    if text.startswith("postgres://"):
        raise ValueError("must begin with postgresql://")
    try:
        parts = urlsplit(text)
        options = dict(parse_qsl(parts.query))
        named = parts.scheme == "postgresql" and bool(parts.path.strip("/")) and parts.port != 0
    except ValueError:
        named = False
        options = {}
    if not named:
        raise ValueError("must be sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME")
    if unknown := options.keys() - _OPTIONS:
        raise ValueError(f"{min(unknown)} is no option of it; those are {', '.join(sorted(_OPTIONS))}")
    if options.get("sslmode", "prefer") not in _SSL_MODES:
        raise ValueError(f"sslmode must be one of {', '.join(sorted(_SSL_MODES))}")
    return url


DatabaseUrl = Annotated[SecretStr, AfterValidator(_database)]
