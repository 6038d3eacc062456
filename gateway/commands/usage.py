"""``tidegate usage``: what was used, what it cost and what it took of energy, from a terminal."""

from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from gateway.commands.admin_client import DEFAULT_URL, AdminClient, AdminKey, AdminUrl, AsJson
from gateway.commands.tables import print_whole
from gateway.energy import watt_hours

_COUNTS = {
    "requests": "requests",
    "refused": "refused",
    "failed": "failed",
    "cache_hits": "cache hits",
    "input_tokens": "tokens in",
    "output_tokens": "tokens out",
}


def show(  # noqa: PLR0913, PLR0917 - the options of a command
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.", show_default=False)] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help="First day in UTC, as 2026-11-01. [default: 29 days before the last]"),
    ] = None,
    end: Annotated[str | None, typer.Option("--to", help="Last day, included. [default: today]")] = None,
    by: Annotated[
        str, typer.Option(help="day, tenant, key, tier, model, upstream; or several: day,model")
    ] = "day",
    url: AdminUrl = DEFAULT_URL,
    admin_key: AdminKey = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
) -> None:
    """Show what was used, what it cost, and what it took of energy."""
    given = {"tenant": tenant, "from": start, "to": end, "by": by}
    params = {name: value for name, value in given.items() if value is not None}
    client = AdminClient(url, admin_key)
    if as_csv:
        typer.echo(client.get_text("/admin/usage", {**params, "format": "csv"}), nl=False)
        return
    found = client.get("/admin/usage", params)
    if as_json:
        client.print_json(found)
    else:
        print_whole(_table(found))


def _table(usage: dict[str, Any]) -> Table:
    title = f"{usage['from']} to {usage['to']} (UTC)"
    table = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE,
        show_footer=True,
        pad_edge=False,
        collapse_padding=True,
    )
    totals = usage["totals"]
    for place, name in enumerate(usage["by"]):
        table.add_column(name, "total" if place == 0 else "")
    for name, heading in _COUNTS.items():
        table.add_column(heading, f"{totals[name]:,}", justify="right")
    table.add_column("cost", _cost(totals), justify="right")
    table.add_column("energy", _energy(totals), justify="right")
    for row in usage["rows"]:
        groups = [escape(str(row[name])) or "-" for name in usage["by"]]
        table.add_row(*groups, *(f"{row[name]:,}" for name in _COUNTS), _cost(row), _energy(row))
    return table


def _cost(sums: dict[str, Any]) -> str:
    """Dollars, as "at least so many" where part of it isn't known."""
    if sums["cost"] is None:
        return "unknown"
    return f"{'≥ ' if sums['unpriced'] else ''}${sums['cost']:,.4f}"


def _energy(sums: dict[str, Any]) -> str:
    """Energy, as "about so much" where part of it is an estimate."""
    estimated = sums["energy"] > sums["energy_measured"]
    return f"{'~' if estimated else ''}{watt_hours(sums['energy'])}"
