"""The page's HTML: a view cut into sections, so that a listener is sent only those that changed."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from gateway import __version__
from gateway.dashboard.journal import ANSWERED, counted_as
from gateway.dashboard.views import GatewayView
from gateway.energy import watt_hours
from gateway.stores.keys import Key

SECTIONS = ("summary", "upstreams", "tiers", "cache", "spend", "requests")
_MINUTE = 12
_MILLISECONDS_BELOW = 1.0
_MINUTES_FROM = 120.0
_THOUSAND = 1000

STATES = {
    "closed": "in rotation",
    "half-open": "trying again",
    "open": "out",
    "draining": "draining",
    "disabled": "key refused",
    "blocked": "quota used up",
}
"""What people call the states."""


def duration(seconds: float | None) -> str:
    """A time in the unit that suits it."""
    if seconds is None:
        return "–"  # noqa: RUF001 - a dash for what isn't known
    if seconds < _MILLISECONDS_BELOW:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < _MINUTES_FROM else f"{seconds / 60:.0f} min"


def count(number: float) -> str:
    """A number in three or four digits."""
    for unit in ("", " k", " M"):
        if number < _THOUSAND:
            return f"{number:.0f}{unit}" if not unit or number >= 100 else f"{number:.1f}{unit}"  # noqa: PLR2004
        number /= _THOUSAND
    return f"{number:.1f} G"


def dollars(amount: float) -> str:
    """An amount of money, in cents where there are some."""
    return f"${amount:,.2f}" if amount >= 1 or not amount else f"${amount:.4f}"


def points(values: list[float | None] | list[int]) -> str:
    """A series for a chart's attribute."""
    return ",".join("" if value is None else f"{value:.3g}" for value in values)


def limit_of(limits: dict[str, Any]) -> list[str]:
    """Limits in words: ``requests 10/minute``."""
    return [f"{name.replace('_', ' ')} {_written(value)}" for name, value in limits.items()]


def _written(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_written(each) for each in value)
    return str(value["amount"]) if isinstance(value, dict) else str(value)


def clock_time(at: datetime) -> str:
    """The time of day."""
    return f"{at:%H:%M:%S}"


_templates = Environment(
    loader=PackageLoader("gateway.dashboard"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {
    "duration": duration,
    "count": count,
    "dollars": dollars,
    "watt_hours": watt_hours,
    "points": points,
    "limits": limit_of,
    "clock_time": clock_time,
    "counted_as": counted_as,
}
_templates.globals |= {"version": __version__, "states": STATES, "answered": ANSWERED}


def sections(view: GatewayView, *, operator: bool) -> dict[str, str]:
    """Each section of the page, with what an ``operator`` may do."""
    traffic = view.traffic
    ended = [sum(line[-_MINUTE:]) for line in (traffic.answered, traffic.failed, traffic.refused)]
    facts = {
        "view": view,
        "operator": operator,
        "rate": sum(ended) / 60,
        "failed": ended[1],
        "refused": ended[2],
        "cost": None if view.today is None else sum(spend.cost for spend in view.today),
        "energy": None if view.today is None else sum(spend.energy for spend in view.today),
    }
    return {name: _templates.get_template(f"_{name}.html").render(facts) for name in SECTIONS}


def page(key: Key, shown: Mapping[str, str]) -> str:
    """The whole page around these sections, for the holder of a key."""
    return _templates.get_template("page.html").render(key=key, sections=shown)


def sign_in_page(fault: str | None) -> str:
    """The page that asks for a key; ``fault`` says why the last one wasn't taken."""
    return _templates.get_template("sign_in.html").render(fault=fault)


def partial(name: str, html: str) -> str:
    """A section on its way into a page that is open."""
    return f'<hx-partial hx-target="#{name}" hx-swap="innerMorph">{html}</hx-partial>'
