"""Rate limits shared by several processes, on Redis or Valkey."""

from gateway.stores.redis.buckets import RedisStore, StoreUnavailable
from gateway.stores.redis.connect import connect
from gateway.stores.redis.fallback import FallbackStore

__all__ = ["FallbackStore", "RedisStore", "StoreUnavailable", "connect"]
