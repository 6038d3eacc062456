"""What ``tidegate tiers`` and ``tidegate tenants`` have in common."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from gateway.commands.admin_client import DEFAULT_URL, AdminClient, AdminKey, AdminUrl, AsJson
from gateway.commands.tables import limits_of, path_of, print_found

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


Name = Annotated[str, typer.Argument(help="Its name.")]


def commands(kind: str, columns: Sequence[str], *, delete_help: str) -> typer.Typer:
    """The commands that list, show and delete definitions of a ``kind``, in the plural as paths have it."""
    noun = kind.removesuffix("s")
    app = typer.Typer(help=f"List, show, set and delete {kind}.", no_args_is_help=True)

    @app.command("list", help=f"List {kind}, those of the file and those that are stored.")
    def list_all(url: AdminUrl = DEFAULT_URL, admin_key: AdminKey = None, as_json: AsJson = False) -> None:
        print_found(AdminClient(url, admin_key).get(path_of(kind)), columns, as_json=as_json)

    @app.command(help=f"Show one {noun}.")
    def show(
        name: Name, url: AdminUrl = DEFAULT_URL, admin_key: AdminKey = None, as_json: AsJson = False
    ) -> None:
        print_found(AdminClient(url, admin_key).get(path_of(kind, name)), columns, as_json=as_json)

    @app.command(help=delete_help)
    def delete(name: Name, url: AdminUrl = DEFAULT_URL, admin_key: AdminKey = None) -> None:
        AdminClient(url, admin_key).delete(path_of(kind, name))
        typer.echo(f"deleted {name}")

    return app


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
