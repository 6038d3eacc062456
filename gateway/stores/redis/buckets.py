"""The buckets of ``policies.ratelimit`` on Redis or Valkey: one script call takes from all of a call's.

The server's clock decides, so that replicas whose own clocks differ share one limit. Corrections are
written behind: who settles waits for nothing, and a server that is away holds up no call.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from gateway.stores.redis.connect import AWAY, Client, close
from gateway.stores.redis.patience import in_time
from gateway.stores.redis.seeds import Seeds
from policies.facts import SettlementLost
from policies.periods import bounds
from policies.ports import Clock, Meter
from policies.ratelimit import Bucket, Charge, Limit, Verdict

_MOST_BEHIND = 10_000
_AT_ONCE = 8
_NO_PERIOD = (0.0, 0.0, 0.0, 0.0)


class StoreUnavailable(Exception):
    """The server didn't answer in time, or not as one that can be written to. ``str`` says why."""


class RedisStore:
    """A BucketStore. ``timeout`` is the most that a call waits for the server, in seconds.

    Its methods raise StoreUnavailable: wrap it in a FallbackStore. ``wall_time`` only chooses between
    which days or months the server does; ``now`` replaces the server's clock in tests.
    """

    def __init__(  # noqa: PLR0913 - its ports
        self,
        client: Client,
        *,
        clock: Clock,
        wall_time: Callable[[], float],
        meter: Meter,
        timeout: float = 0.25,
        now: Callable[[], float] | None = None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._wall_time = wall_time
        self._meter = meter
        self._timeout = timeout
        self._now = now
        self.seeds = Seeds()
        self._take = _Script(client, "take.lua")
        self._settle = _Script(client, "settle.lua")
        self._renew = _Script(client, "renew.lua")
        self._behind: list[tuple[str, Sequence[Charge], float]] = []
        self._writer: asyncio.Task[None] | None = None
        self._undoing: set[asyncio.Task[Verdict]] = set()

    async def take(self, holder: str, charges: Sequence[Charge]) -> Verdict:
        asking = asyncio.get_running_loop().create_task(self._ask(holder, charges))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            # What is on its way can't be called back, only taken back once it is known to be there.
            self._undoing.add(asking)
            asking.add_done_callback(lambda _: self._undo(holder, asking))
            raise

    async def _ask(self, holder: str, charges: Sequence[Charge]) -> Verdict:
        args = self._arguments(holder, charges)
        answer = await self._call(self._take, [charge.bucket for charge in charges], args)
        admitted, at, *amounts = answer
        verdict = Verdict(bool(admitted), float(at), charges, [float(amount) for amount in amounts])
        self.seeds.learn(verdict)
        return verdict

    def _undo(self, holder: str, asked: asyncio.Task[Verdict]) -> None:
        self._undoing.discard(asked)
        if not asked.cancelled() and asked.exception() is None and asked.result().admitted:
            verdict = asked.result()
            back = [Charge(charge.bucket, -charge.cost) for charge in verdict.charges]
            self.settle(holder, back, verdict.at)

    def settle(self, holder: str, charges: Sequence[Charge], taken_at: float) -> None:
        self.seeds.adjust(charges)
        if len(self._behind) >= _MOST_BEHIND:
            self._meter.emit(SettlementLost("redis", "too many corrections wait for the server"))
            return
        self._behind.append((holder, charges, taken_at))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.get_running_loop().create_task(self._write_behind())

    async def renew(self, holder: str, buckets: Sequence[Bucket]) -> None:
        slots = [Charge(bucket, 1) for bucket in buckets]
        await self._call(self._renew, buckets, self._arguments(holder, slots))

    async def probe(self) -> None:
        """Find out whether the server can be written to; connections to one that can't are closed."""
        try:
            async with self._clock.timeout_at(self._clock.now() + self._timeout):
                await self._client.set("tidegate:probe", "1", px=1000)
        except AWAY as error:
            pool = getattr(self._client, "connection_pool", None)
            if pool is not None:
                await pool.disconnect(inuse_connections=False)
            raise StoreUnavailable(_why(error)) from None

    async def flushed(self) -> None:
        """Wait until everything that was settled is written, or lost."""
        await asyncio.gather(*self._undoing, return_exceptions=True)
        while self._writer is not None and not self._writer.done():
            await self._writer

    async def aclose(self) -> None:
        """Write what is left, and close the connections."""
        await self.flushed()
        await close(self._client)

    async def _write_behind(self) -> None:
        while self._behind:
            batch, self._behind = self._behind[:_AT_ONCE], self._behind[_AT_ONCE:]
            written = await asyncio.gather(*(self._write(*entry) for entry in batch), return_exceptions=True)
            for error in written:
                if isinstance(error, Exception):
                    self._meter.emit(SettlementLost("redis", str(error)))

    async def _write(self, holder: str, charges: Sequence[Charge], taken_at: float) -> None:
        args = [*self._arguments(holder, charges), taken_at]
        await self._call(self._settle, [charge.bucket for charge in charges], args)

    async def _call(self, script: "_Script", buckets: Sequence[Bucket], args: list[Any]) -> Any:
        try:
            answer = script([bucket.key for bucket in buckets], args)
            return await in_time(answer, self._timeout, self._clock)
        except AWAY as error:
            raise StoreUnavailable(_why(error)) from None

    def _arguments(self, holder: str, charges: Sequence[Charge]) -> list[Any]:
        args: list[Any] = ["" if self._now is None else self._now(), holder]
        for charge in charges:
            limit, key = charge.bucket.limit, charge.bucket.key
            kind, *shape = _shape(limit)
            args += [kind, charge.cost, *shape]
            if kind == "quota":
                args += bounds(limit.window or "day", limit.zone, self._wall_time())
            else:
                args += _NO_PERIOD
            seed = self.seeds.get(key)
            args += [0, 0, 0] if seed is None else [seed.amount, seed.at, int(self.seeds.forced(key))]
        return args


class _Script:
    """A script of this folder, called by its digest; a server that doesn't know it is told it."""

    def __init__(self, client: Client, name: str) -> None:
        folder = files(__package__)
        self._text = (folder / "bucket.lua").read_text("utf-8") + (folder / name).read_text("utf-8")
        self._digest = _sha1(self._text)
        self._client = client

    async def __call__(self, keys: list[str], args: list[Any]) -> Any:
        try:
            return await self._client.evalsha(self._digest, len(keys), *keys, *args)
        except NoScriptError:
            return await self._client.eval(self._text, len(keys), *keys, *args)


@lru_cache(maxsize=4096)
def _shape(limit: Limit) -> tuple[str, float, float, float]:
    if limit.window is None:
        return "slots", limit.capacity, limit.slack, limit.ttl
    return ("rate" if limit.rolls else "quota"), limit.capacity, limit.slack, limit.rate


def _sha1(text: str) -> str:
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else "no answer in time"
