"""What every section of the configuration shares."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
)


class Section(BaseModel):
    """Immutable once loaded; an unknown key is an error, and no error shows the value it is about."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _sendable(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if not text.isascii() or not text.isprintable() or text != text.strip():
        raise ValueError("must be printable ASCII with no space around it, as it travels in an HTTP header")
    return secret


def _numeric(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - pydantic collects ValueError
    return value


Whole = Annotated[int, BeforeValidator(_numeric)]
Number = Annotated[float, BeforeValidator(_numeric)]
Text = Annotated[str, StringConstraints(min_length=1)]
Secret = Annotated[SecretStr, Field(min_length=1), AfterValidator(_sendable)]
