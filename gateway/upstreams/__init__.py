"""Upstreams in use: one for each account and model, with what has been learnt of it."""

from gateway.upstreams.registry import Upstreams
from gateway.upstreams.upstream import Upstream, UpstreamReport

__all__ = ["Upstream", "UpstreamReport", "Upstreams"]
