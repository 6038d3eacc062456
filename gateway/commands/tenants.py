"""``tidegate tenants``: customers, with limits over all of their keys, from a terminal."""

from typing import Annotated

import typer

from gateway.commands.admin_client import DEFAULT_URL, AdminClient, AdminKey, AdminUrl, AsJson
from gateway.commands.definitions import LimitOption, ZoneOption, change, show_all, show_these
from gateway.commands.tables import path_of

app = typer.Typer(help="List, show, set and delete tenants.", no_args_is_help=True)
_COLUMNS = ("name", "source", "version", "limits", "tier", "zone", "note")
Name = Annotated[str, typer.Argument(help="The tenant's name.")]


@app.command("list")
def list_tenants(url: AdminUrl = DEFAULT_URL, admin_key: AdminKey = None, as_json: AsJson = False) -> None:
    """List tenants, those of the file and those that are stored."""
    show_all(AdminClient(url, admin_key), "tenants", _COLUMNS, as_json=as_json)


@app.command()
def show(
    name: Name, url: AdminUrl = DEFAULT_URL, admin_key: AdminKey = None, as_json: AsJson = False
) -> None:
    """Show one tenant."""
    client = AdminClient(url, admin_key)
    show_these(client, [client.get(path_of("tenants", name))], _COLUMNS, as_json=as_json)


@app.command("set")
def set_tenant(  # noqa: PLR0913, PLR0917 - the options of a tenant
    name: Name,
    limit: LimitOption = None,
    tier: Annotated[
        str | None, typer.Option(help="The tier of its keys that name none.", show_default=False)
    ] = None,
    zone: ZoneOption = None,
    note: Annotated[
        str | None, typer.Option(help="What people should know of it.", show_default=False)
    ] = None,
    url: AdminUrl = DEFAULT_URL,
    admin_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given of a tenant and leave the rest, or make it. In force within a second."""
    client = AdminClient(url, admin_key)
    fields = {"tier": tier, "zone": zone, "note": note}
    changed = change(client, "tenants", name, fields, limit)
    show_these(client, [changed], _COLUMNS, as_json=as_json)


@app.command()
def delete(name: Name, url: AdminUrl = DEFAULT_URL, admin_key: AdminKey = None) -> None:
    """Delete what is stored of a tenant; its keys stay."""
    AdminClient(url, admin_key).delete(path_of("tenants", name))
    typer.echo(f"deleted {name}")
