"""``tidegate tiers``: the classes of service, from a terminal."""

from typing import Annotated

import typer

from gateway.commands.admin_client import DEFAULT_URL, AdminClient, AdminKey, AdminUrl, AsJson
from gateway.commands.definitions import LimitOption, ZoneOption, change, show_all, show_these
from gateway.commands.tables import path_of

app = typer.Typer(help="List, show, set and delete tiers.", no_args_is_help=True)
_COLUMNS = ("name", "source", "version", "limits", "weight", "share", "queue", "zone")
Name = Annotated[str, typer.Argument(help="The tier's name.")]


@app.command("list")
def list_tiers(url: AdminUrl = DEFAULT_URL, admin_key: AdminKey = None, as_json: AsJson = False) -> None:
    """List tiers, those of the file and those that are stored."""
    show_all(AdminClient(url, admin_key), "tiers", _COLUMNS, as_json=as_json)


@app.command()
def show(
    name: Name, url: AdminUrl = DEFAULT_URL, admin_key: AdminKey = None, as_json: AsJson = False
) -> None:
    """Show one tier."""
    client = AdminClient(url, admin_key)
    show_these(client, [client.get(path_of("tiers", name))], _COLUMNS, as_json=as_json)


@app.command("set")
def set_tier(  # noqa: PLR0913, PLR0917 - the options of a tier
    name: Name,
    limit: LimitOption = None,
    weight: Annotated[
        float | None, typer.Option(help="Its part of room that is lent.", show_default=False)
    ] = None,
    share: Annotated[
        str | None, typer.Option(help="Its own part of the room, as 10%.", show_default=False)
    ] = None,
    max_wait: Annotated[
        str | None, typer.Option(help="How long a call may wait for its turn, as 20s.", show_default=False)
    ] = None,
    zone: ZoneOption = None,
    url: AdminUrl = DEFAULT_URL,
    admin_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given of a tier and leave the rest, or make it. In force within a second."""
    client = AdminClient(url, admin_key)
    fields = {
        "weight": weight,
        "share": share,
        "queue": None if max_wait is None else {"max_wait": max_wait},
        "zone": zone,
    }
    changed = change(client, "tiers", name, fields, limit)
    show_these(client, [changed], _COLUMNS, as_json=as_json)


@app.command()
def delete(name: Name, url: AdminUrl = DEFAULT_URL, admin_key: AdminKey = None) -> None:
    """Delete what is stored of a tier; one of the file is as the file has it again."""
    AdminClient(url, admin_key).delete(path_of("tiers", name))
    typer.echo(f"deleted {name}")
