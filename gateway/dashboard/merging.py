"""From what each worker sees to what the gateway is: counts add up, of states the worst is told."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from gateway.api.cache_view import CacheView
from gateway.dashboard.journal import ANSWERED, FAILED, RECENT, REFUSED
from gateway.dashboard.slots import KEPT, SECONDS, Series, slot_of
from gateway.dashboard.views import GatewayView, SpendView, TierView, TrafficView, UpstreamView, WorkerView
from gateway.settings import Tier
from gateway.upstreams import UpstreamReport

_SEVERITY = ("closed", "half-open", "draining", "blocked", "disabled", "open")
_MINUTE = 60 // SECONDS


def merge(
    views: Sequence[WorkerView],
    tiers: Mapping[str, Tier],
    *,
    workers: int,
    cache: CacheView | None,
    today: list[SpendView] | None,
) -> GatewayView:
    """Add the workers up; the newest view is the first."""
    at = views[0].at
    counts, seconds = (
        _sum(view.first_tokens for view in views),
        _sum(view.first_token_seconds for view in views),
    )
    requests = sorted(
        (seen for view in views for seen in view.requests), key=lambda seen: seen.at, reverse=True
    )
    return GatewayView(
        at=datetime.fromtimestamp(at, UTC),
        workers=len(views),
        of=workers,
        upstreams=_upstreams(views, counts, seconds, at),
        tiers=_tiers(views, tiers),
        traffic=_traffic(_sum(view.calls for view in views), at),
        cache=cache,
        today=today,
        requests=requests[:RECENT],
    )


def _upstreams(views: Sequence[WorkerView], counts: Series, seconds: Series, at: float) -> list[UpstreamView]:
    seen: dict[str, list[UpstreamReport]] = {}
    for view in views:
        for report in view.upstreams:
            seen.setdefault(f"{report.upstream}/{report.model}", []).append(report)
    return [
        _upstream(name, reports, counts.get(name, {}), seconds.get(name, {}), at)
        for name, reports in sorted(seen.items())
    ]


def _upstream(
    name: str,
    reports: Sequence[UpstreamReport],
    counts: Mapping[int, float],
    seconds: Mapping[int, float],
    at: float,
) -> UpstreamView:
    worst = max(reports, key=lambda report: (_SEVERITY.index(report.state), report.held_off))
    probes = [report.next_probe for report in reports if report.next_probe is not None]
    return UpstreamView(
        name=name,
        upstream=worst.upstream,
        model=worst.model,
        state=worst.state,
        states=Counter(sorted((report.state for report in reports), key=_SEVERITY.index, reverse=True)),
        why=worst.why,
        next_probe=min(probes, default=None),
        limit=sum(report.limit for report in reports),
        inflight=sum(report.inflight for report in reports),
        waiting=sum(report.waiting for report in reports),
        held_off=worst.held_off,
        error_ratio=max(report.error_ratio for report in reports),
        status_page=worst.status_page,
        first_token=_mean(counts, seconds, _last(at, _MINUTE)),
        first_tokens=[_mean(counts, seconds, [slot]) for slot in _last(at, KEPT)],
    )


def _tiers(views: Sequence[WorkerView], tiers: Mapping[str, Tier]) -> list[TierView]:
    running, waiting = Counter[str](), Counter[str]()
    for view in views:
        running.update(view.running)
        waiting.update(view.waiting)
    shed, refused = _sum(view.shed for view in views), _sum(view.refused for view in views)
    return [
        TierView(
            name=name,
            weight=tier.weight,
            share=tier.share or 0.0,
            limits=tier.limits.written(),
            max_wait=tier.queue.max_wait,
            running=running[name],
            waiting=waiting[name],
            shed=round(sum(shed.get(name, {}).values())),
            refused=round(sum(refused.get(name, {}).values())),
        )
        for name, tier in sorted(tiers.items(), key=lambda item: (-item[1].weight, item[0]))
    ]


def _traffic(calls: Series, at: float) -> TrafficView:
    def line(name: str) -> list[int]:
        return [round(calls.get(name, {}).get(slot, 0)) for slot in _last(at, KEPT)]

    until = (slot_of(at) + 1) * SECONDS
    return TrafficView(
        seconds=SECONDS, until=until, answered=line(ANSWERED), failed=line(FAILED), refused=line(REFUSED)
    )


def _sum(series: Iterable[Series]) -> Series:
    found: dict[str, dict[int, float]] = {}
    for each in series:
        for name, slots in each.items():
            sums = found.setdefault(name, {})
            for slot, amount in slots.items():
                sums[slot] = sums.get(slot, 0.0) + amount
    return found


def _last(at: float, count: int) -> range:
    """The numbers of the newest slots, the present one last."""
    present = slot_of(at)
    return range(present - count + 1, present + 1)


def _mean(counts: Mapping[int, float], seconds: Mapping[int, float], slots: Iterable[int]) -> float | None:
    numbers = [slot for slot in slots if slot in counts]
    total = sum(counts[slot] for slot in numbers)
    return sum(seconds.get(slot, 0.0) for slot in numbers) / total if total else None
