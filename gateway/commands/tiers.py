"""``tidegate tiers``: the classes of service, from a terminal."""

from typing import Annotated

import typer

from gateway.commands.admin_client import DEFAULT_URL, AdminClient, AdminKey, AdminUrl, AsJson
from gateway.commands.definitions import LimitOption, Name, ZoneOption, change, commands
from gateway.commands.tables import print_found

_COLUMNS = ("name", "source", "version", "limits", "weight", "share", "queue", "zone")
app = commands(
    "tiers",
    _COLUMNS,
    delete_help="Delete what is stored of a tier; one of the file is as the file has it again.",
)


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
    print_found(changed, _COLUMNS, as_json=as_json)
