"""``tidegate upstreams``: how upstreams are, and taking them out and back in, from a terminal."""

from typing import Annotated, Any

import typer
from rich.table import Table

from gateway.commands.admin_client import DEFAULT_URL, AdminClient, AdminKey, AdminUrl, AsJson
from gateway.commands.tables import print_whole

app = typer.Typer(help="List upstreams; drain, resume and probe them.", no_args_is_help=True)

Upstream = Annotated[str, typer.Argument(help="A provider, an account (provider#2), or account/model.")]
_COLUMNS = ("upstream", "state", "busy", "queue", "TTFT", "errors", "next probe", "why")
_COLORS = {"closed": "green", "half-open": "yellow", "draining": "cyan"}


@app.command("list")
def list_upstreams(url: AdminUrl = DEFAULT_URL, admin_key: AdminKey = None, as_json: AsJson = False) -> None:
    """List upstreams as the worker that answers sees them."""
    client = AdminClient(url, admin_key)
    found = client.get("/admin/upstreams")
    if as_json:
        client.print_json(found)
    else:
        print_whole(_table(found))


@app.command()
def drain(name: Upstream, url: AdminUrl = DEFAULT_URL, admin_key: AdminKey = None) -> None:
    """Send an upstream no new calls; those under way go on."""
    _order(url, admin_key, name, "drain", "is draining")


@app.command()
def resume(name: Upstream, url: AdminUrl = DEFAULT_URL, admin_key: AdminKey = None) -> None:
    """Take an upstream back into rotation."""
    _order(url, admin_key, name, "resume", "is resumed")


@app.command()
def probe(name: Upstream, url: AdminUrl = DEFAULT_URL, admin_key: AdminKey = None) -> None:
    """Ask an upstream now whether it answers."""
    _order(url, admin_key, name, "probe", "is being probed")


def _order(url: str, admin_key: str | None, name: str, action: str, told: str) -> None:
    AdminClient(url, admin_key).post(f"/admin/upstreams/{name}/{action}", {})
    typer.echo(f"{name} {told}")


def _table(upstreams: list[dict[str, Any]]) -> Table:
    table = Table(*_COLUMNS)
    for upstream in upstreams:
        color = _COLORS.get(upstream["state"], "red")
        table.add_row(
            f"{upstream['upstream']}/{upstream['model']}",
            f"[{color}]{upstream['state']}[/]",
            f"{upstream['inflight']}/{upstream['limit']}",
            str(upstream["waiting"]),
            _seconds(upstream["first_token"]),
            f"{upstream['error_ratio']:.0%}",
            _seconds(upstream["next_probe"]),
            upstream["why"] or "-",
        )
    return table


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
