"""``tidegate tenants``: customers, with limits over all of their keys, from a terminal."""

from typing import Annotated

import typer

from gateway.commands.admin_client import DEFAULT_URL, AdminClient, AdminKey, AdminUrl, AsJson
from gateway.commands.definitions import LimitOption, Name, ZoneOption, change, commands
from gateway.commands.tables import print_found

_COLUMNS = ("name", "source", "version", "limits", "tier", "zone", "note")
app = commands("tenants", _COLUMNS, delete_help="Delete what is stored of a tenant; its keys stay.")


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
    print_found(changed, _COLUMNS, as_json=as_json)
