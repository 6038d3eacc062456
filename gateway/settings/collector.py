"""Where traces go: the base URL of an OpenTelemetry collector that takes OTLP over HTTP."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator

_EXPORTER = "opentelemetry.exporter.otlp.proto.http"


def _unset(value: Any) -> Any:
    return value or None


def _collector(url: str | None) -> str | None:
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound or parts.query or parts.fragment:
        raise ValueError(
            "must be the URL of a collector that takes OTLP over HTTP, such as http://127.0.0.1:4318"
        )
    if parts.username is not None:
        raise ValueError("must hold no password: set OTEL_EXPORTER_OTLP_HEADERS in the environment instead")
    if not _installed():
        raise ValueError("needs OpenTelemetry, which is not installed: run pip install 'tidegate[otel]'")
    return url


def _installed() -> bool:
    try:
        return find_spec(_EXPORTER) is not None
    except ModuleNotFoundError:
        return False


CollectorUrl = Annotated[str | None, BeforeValidator(_unset), AfterValidator(_collector)]
