"""How keys are asked for and shown."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from gateway.api.admin.names import Label, Name, moment
from gateway.settings import Limits
from gateway.stores.keys import Key, Role

Models = Annotated[list[Label], Field(min_length=1, description="Names and globs.", examples=[["gpt-*"]])]


class NewKey(BaseModel):
    """A key to be made. A role other than client makes a key of the admin API, which takes an owner."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"name": "laptop", "tenant": "acme", "tier": "pro", "limits": {"requests": "60/minute"}}
            ]
        },
    )

    name: Label
    tenant: Name
    tier: Name | None = Field(default=None, description="The tenant's own if null, or else default.")
    role: Role = Role.CLIENT
    models: Models | None = None
    expires: AwareDatetime | None = None
    limits: Limits | None = None


class KeyPatch(TypedDict, total=False):
    """What to change of a key. Null takes models, expires and limits away."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    name: Label
    tier: Name
    models: Models | None
    expires: AwareDatetime | None
    limits: Limits | None


class KeyView(BaseModel):
    """A key as the API shows it; ``hint`` is how its secret begins."""

    id: str
    name: str
    tenant: str
    tier: str
    role: Role
    models: list[str] | None
    limits: dict[str, Any] | None = Field(examples=[{"requests": "60/minute"}])
    hint: str
    created: datetime
    expires: datetime | None
    old_until: datetime | None = Field(
        description="Until when the secret before the last one opens the same."
    )


class CreatedKey(KeyView):
    """A key with its new secret, which is shown this once."""

    key: str = Field(examples=["tg-2W6tq0y5oBq7sRzK3dTj9XcVbNmLpHf1"])


def key_view(key: Key) -> KeyView:
    """A key as the API shows it."""
    return KeyView(
        id=key.id,
        name=key.name,
        tenant=key.tenant,
        tier=key.tier,
        role=key.role,
        models=None if key.models is None else list(key.models),
        limits=None if key.limits is None else key.limits.written(),
        hint=key.hint,
        created=moment(key.created),
        expires=None if key.expires is None else moment(key.expires),
        old_until=None if key.old_until is None else moment(key.old_until),
    )
