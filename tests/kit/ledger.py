"""Entries of the usage ledger, for tests."""

from typing import Any

from gateway.stores.ledger import Entry

NOON = 1_795_000_000.0  # 2026-11-18


def make_entry(**facts: Any) -> Entry:
    """An answered chat; ``facts`` override its fields."""
    defaults: dict[str, Any] = {
        "at": NOON,
        "request": "req_1",
        "tenant": "acme",
        "key_id": "key_1",
        "tier": "pro",
        "operation": "chat/completions",
        "outcome": "ok",
        "status": 200,
        "duration": 1.5,
        "model": "chat",
        "route": "chat",
        "upstream": "up",
        "served_model": "m",
        "input": 10,
        "output": 5,
        "cost": 30,
    }
    return Entry(**{**defaults, **facts})
