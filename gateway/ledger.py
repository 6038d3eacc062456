"""The usage ledger of one worker: requests are noted in memory and written in batches beside them.

Noting is an append, so that no request waits for a database. What a process loses when it is killed is
what it noted since the last batch: less than a second. While the database is away entries are kept, and
the oldest dropped once there are too many; a batch that failed is tried again as it was, ids included,
since it may have come through all the same.
"""

import asyncio
import logging
import math
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from gateway.stores.database import reason
from gateway.stores.ledger import Entry, LedgerStore
from policies.facts import EnergyCounted, LedgerFlushed, UsageCounted
from policies.ports import Clock, Meter
from policies.service import Usage

_LOG = logging.getLogger(__name__)
_AWAY = (OperationalError, InterfaceError, TimeoutError, OSError)
"""The database can't be reached or is locked. Any other error of a batch would come again for ever."""


@dataclass(frozen=True, slots=True)
class LedgerOptions:
    """Batches of at most ``batch`` entries are written every ``interval``.

    At most ``most`` entries are kept in memory. Times are in seconds.
    """

    interval: float = 0.4
    batch: int = 500
    most: int = 100_000
    prune_every: float = 600.0
    last_chance: float = 5.0


class Ledger:
    """Takes entries and sees that they are written. ``run`` and ``prune`` are tasks; ``close`` comes last."""

    def __init__(
        self,
        store: LedgerStore,
        options: LedgerOptions,
        *,
        clock: Clock,
        wall_time: Callable[[], float],
        meter: Meter,
    ) -> None:
        self.keep = math.inf
        """Seconds after which rows are deleted from the database."""
        self._store = store
        self._options = options
        self._clock = clock
        self._wall_time = wall_time
        self._meter = meter
        self._waiting: deque[Entry] = deque()
        self._batch: list[Entry] = []
        self._writing = asyncio.Lock()
        self._prefix = secrets.token_hex(8)
        self._number = 0
        self._dropped = 0
        self._away = False

    @property
    def waiting(self) -> int:
        """How many entries aren't written yet."""
        return len(self._waiting) + len(self._batch)

    def note(self, entry: Entry) -> None:
        """Have an entry written soon. Returns at once and never raises."""
        self._waiting.append(entry)
        if len(self._waiting) > self._options.most:
            self._waiting.popleft()
            self._dropped += 1

    async def run(self) -> None:
        """Write what is noted, until cancelled."""
        while True:
            await self._clock.sleep(self._options.interval)
            try:
                await self.flush()
            except Exception:  # noqa: BLE001 - a defect in one batch must not end all that come after it
                _LOG.exception("the usage ledger could not be written")

    async def prune(self) -> None:
        """Delete rows that are older than ``keep``, until cancelled. The daily sums stay."""
        while True:
            try:
                while await self._store.prune(self._wall_time() - self.keep):
                    await self._clock.sleep(0)
            except (SQLAlchemyError, OSError) as error:
                _LOG.warning("old rows of the usage ledger could not be deleted: %s", reason(error))
            await self._clock.sleep(self._options.prune_every)

    async def close(self) -> None:
        """Write what is left, if the database takes it within a few seconds."""
        try:
            async with self._clock.timeout_at(self._clock.now() + self._options.last_chance):
                await self.flush()
        except TimeoutError:
            pass
        if self.waiting:
            _LOG.error("%d entries of the usage ledger are lost: the database is away", self.waiting)

    async def flush(self) -> None:
        """Write all that was noted until now, unless the database is away."""
        async with self._writing:
            left = len(self._waiting)
            while self._batch or left > 0:
                if not self._batch:
                    taken = [self._waiting.popleft() for _ in range(min(left, self._options.batch))]
                    left -= len(taken)
                    self._batch = self._prepare(taken)
                if not await self._write():
                    break
            self._tell_dropped()

    async def _write(self) -> bool:
        """Whether the batch is done with."""
        batch = self._batch
        try:
            await self._store.write(batch)
        except _AWAY as error:
            if not self._away:
                _LOG.warning("the usage ledger can't be written, entries are kept: %s", reason(error))
            self._away = True
            self._meter.emit(LedgerFlushed(written=0, dropped=0, waiting=self.waiting, away=True))
            return False
        except Exception:  # noqa: BLE001 - whatever it is, the next batch needn't have it
            _LOG.exception("%d entries of the usage ledger are lost", len(batch))
            self._batch = []
            self._meter.emit(LedgerFlushed(written=0, dropped=len(batch), waiting=self.waiting, away=False))
            return True
        if self._away:
            _LOG.info("the usage ledger is written again, %d entries were kept", self.waiting)
        self._away = False
        self._batch = []
        self._meter.emit(LedgerFlushed(written=len(batch), dropped=0, waiting=self.waiting, away=False))
        return True

    def _prepare(self, entries: Iterable[Entry]) -> list[Entry]:
        """Entries with their ids, and the alike refusals among them as one."""
        batch = merged(entries)
        for entry in batch:
            self._number += 1
            entry.id = f"{self._prefix}-{self._number}"
        for used in _counted(batch):
            self._meter.emit(used)
        for took in _energies(batch):
            self._meter.emit(took)
        return batch

    def _tell_dropped(self) -> None:
        if self._dropped:
            _LOG.error("%d entries of the usage ledger were dropped, the oldest first", self._dropped)
            dropped, self._dropped = self._dropped, 0
            self._meter.emit(LedgerFlushed(written=0, dropped=dropped, waiting=self.waiting, away=self._away))


def merged(entries: Iterable[Entry]) -> list[Entry]:
    """The entries in their order, with alike refusals as one: a key that hammers must not fill the disk.

    One entry stands for them with their number and is otherwise the last of them.
    """
    found: list[Entry] = []
    places: dict[tuple[object, ...], int] = {}
    for entry in entries:
        if entry.upstream or entry.wasted or not entry.refused:
            found.append(entry)
            continue
        alike = (entry.key_id, entry.model, entry.operation, entry.outcome, entry.status, entry.stream)
        place = places.setdefault(alike, len(found))
        if place == len(found):
            found.append(entry)
        else:
            entry.requests += found[place].requests
            found[place] = entry
    return found


def _counted(entries: Iterable[Entry]) -> Iterable[UsageCounted]:
    """What the entries come to by model and tier."""
    sums: dict[tuple[str, str], tuple[Usage, int, int]] = {}
    for entry in entries:
        group = (entry.route, entry.tier)
        usage, cost, unpriced = sums.get(group, (Usage(), 0, 0))
        added = Usage(
            usage.input + entry.input,
            usage.output + entry.output,
            usage.cached_input + entry.cached_input,
            usage.reasoning + entry.reasoning,
        )
        sums[group] = (added, cost + (entry.cost or 0), unpriced + (entry.cost is None))
    return [
        UsageCounted(route, tier, usage, cost, unpriced)
        for (route, tier), (usage, cost, unpriced) in sums.items()
    ]


def _energies(entries: Iterable[Entry]) -> Iterable[EnergyCounted]:
    """What the entries took at each upstream, wasted attempts at those that they were made at."""
    sums: dict[tuple[str, str, bool], list[float]] = {}
    for entry in entries:
        found = [(entry.upstream, entry.measured, entry.energy - entry.energy_wasted, 0, entry.flops or 0.0)]
        found += [(upstream, False, energy, energy, 0.0) for upstream, energy in entry.wasted]
        for upstream, measured, *amounts in found:
            if any(amounts):
                group = (upstream, entry.route, measured)
                before = sums.get(group, (0, 0, 0.0))
                sums[group] = [one + more for one, more in zip(before, amounts, strict=True)]
    return [
        EnergyCounted(*group, energy=int(energy), wasted=int(wasted), flops=flops)
        for group, (energy, wasted, flops) in sums.items()
    ]
