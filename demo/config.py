"""The gateway's configuration in the demo."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demo.acts import MODEL
from demo.load import CHAT, CROWDS, FAQ, SURE

ADMIN_KEY = "tga-demo"
LOCAL_MODEL = "smollm2-135m-moe"
_PRICES = {"alpha": (0.3, 1.2), "beta": (0.25, 1.0), "gamma": (0.6, 2.4)}
_BILLIONS = {"alpha": 40, "beta": 8, "gamma": 100}
_TIMEOUTS = {"first_token": "2s", "stall": "2s", "unary": "5s", "total": "20s"}
_UNHURRIED = {"first_token": "20s", "stall": "10s", "total": "40s"}
"""A small machine that has much to do takes its time for the bundled model."""
_CACHE = {"exact": "6s", "stale_while_revalidate": "20s", "when": "always", "share": "all"}
_TIERS = {
    "pro": {"share": "50%", "weight": 4, "limits": {"tokens": "200000/minute"}},
    "plus": {"share": "30%", "weight": 2, "limits": {"requests": {"amount": "100/minute", "burst": 5}}},
    "free": {
        "share": "10%",
        "queue": {"max_wait": "3s"},
    },
}


def configuration(
    upstreams: Mapping[str, str], store: str, folder: Path, port: int, *, local: bool
) -> dict[str, Any]:
    """Three upstreams, the bundled model behind them, three tiers, and a model with a cache."""
    providers: dict[str, Any] = {
        name: {
            "preset": "vllm",
            "base_url": f"{url}/v1",
            "max_concurrency": 2,
            "prices": {MODEL: dict(zip(("input", "output"), _PRICES[name], strict=True))},
            "energy": {MODEL: {"active": _BILLIONS[name]}},
            "probe": {"interval": "2s"},
        }
        for name, url in upstreams.items()
    }
    equals = [f"{name}/{MODEL}" for name in ("alpha", "beta")]
    steps: list[Any] = [equals, f"gamma/{MODEL}"]
    if local:
        providers["local"] = {"preset": "local"}
    return {
        "server": {"port": port, "workers": 2, "drain": "2s"},
        "store": store,
        "database": f"sqlite:///{folder}/tidegate.db",
        "admin": {"key": ADMIN_KEY},
        "observability": {"access_log": "off"},
        "providers": providers,
        "models": {
            CHAT: {"route": steps, "timeouts": _TIMEOUTS, "hedge": {"after": "200ms", "tiers": ["pro"]}},
            SURE: {"route": [*steps, f"local/{LOCAL_MODEL}"] if local else steps, "timeouts": _UNHURRIED},
            FAQ: {"route": steps, "timeouts": _TIMEOUTS, "cache": _CACHE},
        },
        "cache": {"memory": "16KiB", "disk": "off"},
        "tiers": _TIERS,
        "keys": [
            {"name": crowd.tier, "key": crowd.key, "tenant": f"{crowd.tier}-customers", "tier": crowd.tier}
            for crowd in CROWDS
        ],
    }
