"""Rate limits shared by several processes, on Redis or Valkey."""

from gateway.stores.redis.buckets import RedisStore, StoreUnavailable
from gateway.stores.redis.connect import connect
from gateway.stores.redis.fallback import FallbackOptions, FallbackStore
from gateway.stores.redis.leases import LeasedStore, LeaseOptions

__all__ = [
    "FallbackOptions",
    "FallbackStore",
    "LeaseOptions",
    "LeasedStore",
    "RedisStore",
    "StoreUnavailable",
    "connect",
]
