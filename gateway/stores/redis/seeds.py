"""What this replica last knew of each bucket, so that a store that lost its memory starts from there."""

from collections.abc import Mapping, Sequence

from policies.ratelimit import Charge, Level, Verdict

_MOST = 100_000


class Seeds:
    """The level of each bucket after the last charge. The oldest are forgotten beyond a hundred thousand."""

    def __init__(self) -> None:
        self._known: dict[str, Level] = {}
        self._forced: set[str] = set()

    def learn(self, verdict: Verdict) -> None:
        """The store has said what the buckets hold."""
        known, admitted = self._known, verdict.admitted
        for charge, amount in zip(verdict.charges, verdict.amounts, strict=True):
            if charge.bucket.limit.window is None:
                continue
            key = charge.bucket.key
            if admitted:
                self._forced.discard(key)
            elif key in self._forced:
                continue
            known.pop(key, None)
            known[key] = Level(amount + charge.cost * admitted, verdict.at)
        while len(known) > _MOST:
            oldest = next(iter(known))
            del known[oldest]
            self._forced.discard(oldest)

    def adjust(self, charges: Sequence[Charge]) -> None:
        """Corrections are on their way."""
        for charge in charges:
            level = self._known.get(charge.bucket.key)
            if level is not None:
                self._known[charge.bucket.key] = Level(max(0.0, level.amount + charge.cost), level.at)

    def restore(self, levels: Mapping[str, Level]) -> None:
        """What was known when an earlier process ended."""
        self._known = {**levels, **self._known}

    def force(self, key: str, level: Level) -> None:
        """The store wasn't asked for a time: the bucket holds this much at least, whatever it says."""
        self._known[key] = level
        self._forced.add(key)

    def get(self, key: str) -> Level | None:
        """What was known last."""
        return self._known.get(key)

    def forced(self, key: str) -> bool:
        """Whether that counts even where the store knows better."""
        return key in self._forced
