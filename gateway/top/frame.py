"""Draws a view of the gateway for a terminal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich import box
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gateway.dashboard.rendering import STATES, count, dollars, duration
from gateway.dashboard.views import GatewayView, UpstreamView
from gateway.energy import watt_hours
from gateway.top.feed import Lost
from gateway.top.pace import Pace

_COLORS = {"closed": "green", "half-open": "yellow", "draining": "cyan"}
_SEVERITY = ("open", "disabled", "blocked", "draining", "half-open", "closed")
_BARS = "▁▂▃▄▅▆▇█"
_SPARKS = 20
_MINUTE = 12
_TROUBLED = 0.1
_INDENT = (0, 0, 0, 1)
"""As the tables have it."""

ORDERS: dict[str, Callable[[UpstreamView], tuple[float, str]]] = {
    "state": lambda seen: (_SEVERITY.index(seen.state), seen.name),
    "busy": lambda seen: (-seen.inflight, seen.name),
    "TTFT": lambda seen: (-(seen.first_token or 0.0), seen.name),
    "errors": lambda seen: (-seen.error_ratio, seen.name),
    "name": lambda seen: (0, seen.name),
}
"""What upstreams can be sorted by: the most worrying first."""


@dataclass(slots=True)
class Screen:
    """What is known and how it is shown."""

    url: str
    order: str = "state"
    view: GatewayView | None = None
    lost: str | None = None
    pace: Pace = field(default_factory=Pace)

    def take(self, told: GatewayView | Lost) -> None:
        """Take what came from the gateway."""
        if isinstance(told, Lost):
            self.lost = told.why
        else:
            self.view, self.lost = told, None
            self.pace.see(told)

    def sort_by_next(self) -> None:
        """Sort upstreams by the next thing."""
        names = list(ORDERS)
        self.order = names[(names.index(self.order) + 1) % len(names)]

    def draw(self, *, keys: bool = True) -> RenderableType:
        """The whole frame; ``keys`` tells of them."""
        parts: list[RenderableType] = [Padding(self._head(), _INDENT)]
        if self.view is not None:
            parts += [Padding(_traffic(self.view, self.pace), _INDENT), _upstreams(self.view, self.order)]
            tables = [_tiers(self.view), _cache(self.view), _spend(self.view)]
            parts.append(Columns([table for table in tables if table.row_count], padding=(0, 2)))
        if keys:
            parts.append(Padding(Text(f"q quit   s sort (by {self.order})", "dim"), _INDENT))
        return Group(*parts)

    def _head(self) -> Text:
        head = Text.assemble(("Tidegate", "bold"), "  ", self.url)
        if self.view is not None:
            head.append(f"  {self.view.at:%H:%M:%S} UTC")
            heard, of = self.view.workers, self.view.of
            head.append(f"  {heard} of {of} workers", "" if heard == of else "yellow")
        if self.lost is not None:
            head.append(f"\nconnection lost: {self.lost}; trying again", "bold red")
        elif self.view is None:
            head.append("\nconnecting", "dim")
        return head


def _traffic(view: GatewayView, pace: Pace) -> Table:
    traffic = view.traffic
    answered, failed, refused = (
        sum(line[-_MINUTE:]) for line in (traffic.answered, traffic.failed, traffic.refused)
    )
    ended = [sum(slot) for slot in zip(traffic.answered, traffic.failed, traffic.refused, strict=True)]
    speed = pace.tokens_per_second
    cost = None if view.today is None else sum(spend.cost for spend in view.today)
    energy = None if view.today is None else sum(spend.energy for spend in view.today)
    facts = {
        "running": Text(count(sum(tier.running for tier in view.tiers))),
        "waiting": Text(count(sum(tier.waiting for tier in view.tiers))),
        "requests/s": Text(f"{(answered + failed + refused) / 60:.1f}  {sparkline(ended)}"),
        "failed": Text(count(failed), "red" if failed else ""),
        "refused": Text(count(refused), "yellow" if refused else ""),
        "tokens/s": Text("-" if speed is None else count(speed)),
        "cost today": Text("-" if cost is None else dollars(cost)),
        "energy today": Text("-" if energy is None else watt_hours(energy)),
    }
    shown = Table(*facts, box=None, padding=(0, 3, 0, 0), header_style="dim")
    shown.add_row(*facts.values())
    return shown


def _upstreams(view: GatewayView, order: str) -> Table:
    shown = _table("upstream", "state", "busy", "queue", "TTFT", "last minutes", "errors", "why")
    shown.columns[0].overflow = shown.columns[-1].overflow = "fold"
    for column in shown.columns[2:5]:
        column.justify = "right"
    for seen in sorted(view.upstreams, key=ORDERS[order]):
        why = seen.why or ("" if seen.status_page is None else f"status page: {seen.status_page}")
        if seen.next_probe is not None:
            why += f"; tried again in {duration(seen.next_probe)}"
        elif seen.held_off:
            why += f"{'; ' if why else ''}wants {duration(seen.held_off)} of silence"
        full = seen.inflight >= seen.limit
        shown.add_row(
            escape(seen.name),
            Text(STATES[seen.state], _COLORS.get(seen.state, "bold red")),
            Text(f"{seen.inflight}/{seen.limit}", "yellow" if full else ""),
            count(seen.waiting),
            "-" if seen.first_token is None else duration(seen.first_token),
            sparkline(seen.first_tokens),
            Text(f"{seen.error_ratio:.0%}", "red" if seen.error_ratio >= _TROUBLED else ""),
            escape(why),
        )
    return shown


def _tiers(view: GatewayView) -> Table:
    shown = _table("tier", "running", "waiting", "shed", "refused", numbers=True)
    for tier in view.tiers:
        shown.add_row(
            escape(tier.name),
            count(tier.running),
            Text(count(tier.waiting), "yellow" if tier.waiting else ""),
            Text(count(tier.shed), "red" if tier.shed else ""),
            Text(count(tier.refused), "yellow" if tier.refused else ""),
        )
    return shown


def _cache(view: GatewayView) -> Table:
    shown = _table("cache", "hits", "stale", "similar", "misses", "hit rate", numbers=True)
    for model in view.cache.models if view.cache else []:
        figures = (model.hit, model.stale, model.semantic, model.miss)
        shown.add_row(escape(model.model), *map(count, figures), f"{model.hit_rate:.0%}")
    return shown


def _spend(view: GatewayView) -> Table:
    shown = _table("today", "requests", "tokens in", "tokens out", "cost", "energy", numbers=True)
    for spend in view.today or []:
        known = dollars(spend.cost) if spend.unpriced < spend.requests or spend.cost else "unknown"
        cost = f"≥ {known}" if spend.unpriced and known != "unknown" else known
        counts = map(count, (spend.requests, spend.input, spend.output))
        shown.add_row(escape(spend.model), *counts, cost, watt_hours(spend.energy))
    return shown


def _table(*names: str, numbers: bool = False) -> Table:
    shown = Table(*names, box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    if numbers:
        for column in shown.columns[1:]:
            column.justify = "right"
    return shown


def sparkline(values: Sequence[float | None]) -> str:
    """The newest of these as bars as high as they are large; a blank for one that isn't known."""
    newest = values[-_SPARKS:]
    most = max((value for value in newest if value is not None), default=0.0)
    if not most:
        return ""
    top = len(_BARS) - 1
    return "".join(" " if value is None else _BARS[round(value / most * top)] for value in newest)
