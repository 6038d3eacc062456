"""Rate limits shared by several processes, on Redis or Valkey."""

from gateway.stores.redis.buckets import RedisStore, StoreUnavailable
from gateway.stores.redis.connect import Client, connect
from gateway.stores.redis.fallback import FallbackOptions, FallbackStore
from gateway.stores.redis.leases import LeasedStore, LeaseOptions
from gateway.stores.redis.nudges import Nudges
from gateway.stores.redis.shared import SharedCounts, SharedOptions

__all__ = [
    "Client",
    "FallbackOptions",
    "FallbackStore",
    "LeaseOptions",
    "LeasedStore",
    "Nudges",
    "RedisStore",
    "SharedCounts",
    "SharedOptions",
    "StoreUnavailable",
    "connect",
]
