"""Connections by URL: one server, a unix socket, a Cluster or Sentinel, each with TLS and a password.

redis://[user:password@]host[:port][/db]      rediss:// for TLS, with ?ssl_ca_certs=PATH and the like
unix:///path/to/socket
redis+cluster://host[:port]                   rediss+cluster:// for TLS
redis+sentinel://host[:port],host[:port]/name[/db]
"""

from typing import Any
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, Sentinel
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

Client = Redis | RedisCluster

AWAY = (RedisError, RedisClusterException, OSError, TimeoutError)
"""What is raised by a server that can't be reached, doesn't answer in time or refuses."""

_CONNECTIONS = 16
_SENTINEL_PORT = 26379


def connect(url: str, *, timeout: float) -> Client:
    """A client that waits ``timeout`` seconds at most for an answer, and tries nothing twice.

    A charge that was sent and not confirmed may have been made: to send it again would make it twice.
    Raises ValueError for a URL that names nothing.
    """
    scheme = urlsplit(url).scheme
    options: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    if scheme.endswith("+cluster"):
        return RedisCluster.from_url(url.replace("+cluster", "", 1), **options)
    if scheme.endswith("+sentinel"):
        return _sentinel(url, options)
    pool = BlockingConnectionPool.from_url(
        url, max_connections=_CONNECTIONS, timeout=timeout, retry=_once(), **options
    )
    return Redis.from_pool(pool)


async def listener(client: Client) -> PubSub:
    """What hears messages, a context manager. Any node of a Cluster does: they pass them on to the rest."""
    if not isinstance(client, RedisCluster):
        return client.pubsub()
    await client.initialize()
    return client.pubsub(node=client.get_random_node())


async def close(client: Client) -> None:
    """Close its connections, those to the sentinels included."""
    await client.aclose()
    pool = getattr(client, "connection_pool", None)
    if isinstance(pool, SentinelConnectionPool):
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def _sentinel(url: str, options: dict[str, Any]) -> "Redis":
    parts = urlsplit(url)
    name, _, database = parts.path.strip("/").partition("/")
    if not name:
        raise ValueError("Name the master: redis+sentinel://host:26379/mymaster")
    hosts = []
    for host in parts.netloc.rpartition("@")[2].split(","):
        address, _, port = host.rpartition(":") if ":" in host else (host, "", "")
        hosts.append((address, int(port or _SENTINEL_PORT)))
    login: dict[str, Any] = dict(parse_qsl(parts.query))
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    login |= {"username": user} if user else {}
    login |= {"password": password} if password else {}
    sentinel = Sentinel(hosts, **options)  # type: ignore[no-untyped-call]
    tls = parts.scheme.startswith("rediss")
    master: Redis = sentinel.master_for(
        name, db=int(database or 0), ssl=tls, retry=_once(), **options, **login
    )
    return master


def _once() -> Retry:
    return Retry(NoBackoff(), 0)
