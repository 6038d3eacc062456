"""``tidegate audit``: who changed what, and when, from a terminal."""

from typing import Annotated

import typer

from gateway.commands.admin_client import DEFAULT_URL, AdminClient, AdminKey, AdminUrl, AsJson
from gateway.commands.tables import print_table

_COLUMNS = ("at", "who", "role", "action", "subject", "name", "request_id")


def show(  # noqa: PLR0913, PLR0917 - the options of a command
    subject: Annotated[
        str | None, typer.Option(help="key, tier, tenant, upstream, configuration or cache.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The id or the name of what was changed.")] = None,
    actor: Annotated[str | None, typer.Option(help="The id of the key that did it.")] = None,
    since: Annotated[str | None, typer.Option(help="A time with its zone, as 2026-11-01T00:00:00Z.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the newest first.")] = 20,
    url: AdminUrl = DEFAULT_URL,
    admin_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Show who changed what, newest first; --json has what it was and what it became."""
    given = {"subject": subject, "name": name, "actor": actor, "since": since, "limit": str(limit)}
    client = AdminClient(url, admin_key)
    found = client.get("/admin/audit", {key: value for key, value in given.items() if value is not None})
    if as_json:
        client.print_json(found)
    else:
        shown = ({**entry, "who": entry["actor"]["name"], "role": entry["actor"]["role"]} for entry in found)
        print_table(_COLUMNS, shown)
