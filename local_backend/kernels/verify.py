"""Compares another library's kernel with the plain form once, before it is used.

A kernel that fails or disagrees, as a wrong scale layout silently does, is left alone with a warning.
"""

import logging
from collections.abc import Callable

from torch import Tensor

log = logging.getLogger(__name__)

# Of the norm: twice the rounding of a bfloat16 result.
_TOLERANCE = 1e-2


def agrees(name: str, compute: Callable[[], Tensor], expected: Tensor) -> bool:
    """Whether `compute` gives `expected` but for rounding."""
    try:
        error = float((compute().float() - expected).norm() / expected.norm())
    # Libraries outside our control: whatever they raise, the plain form still works.
    except Exception:
        log.warning("the %s kernel failed and is not used", name, exc_info=True)
        return False
    if not error <= _TOLERANCE:
        log.warning("the %s kernel is wrong by %.3g and is not used", name, error)
        return False
    return True
