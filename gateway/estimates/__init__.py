"""What a call will take in tokens, before anybody has counted them."""

from gateway.estimates.estimates import TokenEstimates

__all__ = ["TokenEstimates"]
