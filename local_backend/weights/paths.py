"""Where converted models and downloads live: TIDEGATE_CACHE, else the XDG cache directory."""

import os
from pathlib import Path


def default_cache_dir() -> Path:
    """`$TIDEGATE_CACHE`, else `$XDG_CACHE_HOME/tidegate`, else `~/.cache/tidegate`."""
    if explicit := os.environ.get("TIDEGATE_CACHE"):
        return Path(explicit).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "tidegate"
