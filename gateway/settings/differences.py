"""What another configuration would change, a line for each thing. No value is told: it may be a secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.settings.schema import Settings


def differences(old: Settings, new: Settings) -> list[str]:
    """Lines such as `models.chat: changed`; none where both say the same."""
    found: list[str] = []
    for section in Settings.model_fields:
        before, after = _members(getattr(old, section)), _members(getattr(new, section))
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                how = "changed" if name in before and name in after else "added" if name in after else "gone"
                found.append(f"{section}.{name}: {how}" if name else f"{section}: {how}")
    return found


def _members(section: Any) -> Mapping[str, Any]:
    """A section's parts by name; a plain value is a part without one."""
    if isinstance(section, Mapping):
        return section
    if isinstance(section, tuple):
        return {part.name: part for part in section}
    return dict(section) if hasattr(section, "model_fields_set") else {"": section}
