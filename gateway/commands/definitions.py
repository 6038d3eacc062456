"""What ``tidegate tiers`` and ``tidegate tenants`` have in common."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from gateway.commands.admin_client import AdminClient
from gateway.commands.tables import limits_of, path_of, print_table

LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        help="As requests=10/minute,50/day; repeatable. Of requests, tokens, input_tokens, output_tokens, "
        "spend, concurrency. Without an amount it takes the limit away.",
    ),
]
ZoneOption = Annotated[
    str | None, typer.Option(help="Where days and months begin, as Europe/Berlin.", show_default=False)
]


def show_all(client: AdminClient, kind: str, columns: Sequence[str], *, as_json: bool) -> None:
    """Show every one."""
    show_these(client, client.get(path_of(kind)), columns, as_json=as_json)


def show_these(
    client: AdminClient, found: list[dict[str, Any]], columns: Sequence[str], *, as_json: bool
) -> None:
    """Show some of them, as JSON or as a table."""
    if as_json:
        client.print_json(found)
    else:
        print_table(columns, found)


def change(
    client: AdminClient, kind: str, name: str, fields: dict[str, Any], limits: list[str] | None
) -> dict[str, Any]:
    """Change the fields that are given and leave the rest, or make it with them."""
    path = path_of(kind, name)
    wanted = {field: value for field, value in fields.items() if value is not None}
    if limits:
        wanted["limits"] = limits_of(limits)
    state = client.get_state(path)
    changed: dict[str, Any]
    if state is None:
        wanted["limits"] = {
            name: value for name, value in wanted.get("limits", {}).items() if value is not None
        }
        changed = client.put(path, wanted)
    else:
        changed = client.patch(path, wanted, state[1])
    return changed
