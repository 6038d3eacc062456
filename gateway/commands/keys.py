"""``tidegate keys``: the admin API's keys from a terminal."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from gateway.commands.admin_client import DEFAULT_URL, AdminClient, AdminKey, AdminUrl, AsJson

app = typer.Typer(help="List, create, show and delete API keys.", no_args_is_help=True)
_COLUMNS = ("id", "name", "tenant", "tier", "models", "hint", "created", "expires")


@app.command("list")
def list_keys(
    url: AdminUrl = DEFAULT_URL,
    admin_key: AdminKey = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's keys.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the stored keys."""
    client = AdminClient(url, admin_key)
    found = client.get("/admin/keys", params={} if tenant is None else {"tenant": tenant})
    if as_json:
        client.print_json(found)
    else:
        Console().print(_table(found))


@app.command()
def create(  # noqa: PLR0913, PLR0917 - the options of a key
    name: Annotated[str, typer.Argument(help="What to call the key.")],
    tenant: Annotated[str, typer.Option(help="Whom its use is counted for.")] = "default",
    tier: Annotated[str, typer.Option(help="Its tier.")] = "default",
    model: Annotated[
        list[str] | None, typer.Option(help="A model or glob it may use; repeatable. All if not given.")
    ] = None,
    expires: Annotated[
        str | None, typer.Option(help="ISO 8601 time with zone, such as 2027-01-01T00:00:00Z.")
    ] = None,
    url: AdminUrl = DEFAULT_URL,
    admin_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once."""
    client = AdminClient(url, admin_key)
    wanted: dict[str, Any] = {"name": name, "tenant": tenant, "tier": tier}
    if model:
        wanted["models"] = model
    if expires is not None:
        wanted["expires"] = expires
    made = client.post("/admin/keys", wanted)
    if as_json:
        client.print_json(made)
    else:
        typer.echo(made["key"])
        typer.echo(f"{made['id']} for tenant {made['tenant']}, tier {made['tier']}; shown this once.")


@app.command()
def show(
    key_id: Annotated[str, typer.Argument(help="The key's id.")],
    url: AdminUrl = DEFAULT_URL,
    admin_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Show one key, without its secret."""
    client = AdminClient(url, admin_key)
    key = client.get(f"/admin/keys/{key_id}")
    if as_json:
        client.print_json(key)
    else:
        Console().print(_table([key]))


@app.command()
def delete(
    key_id: Annotated[str, typer.Argument(help="The key's id.")],
    url: AdminUrl = DEFAULT_URL,
    admin_key: AdminKey = None,
) -> None:
    """Delete a key; it opens nothing from the next second on."""
    AdminClient(url, admin_key).delete(f"/admin/keys/{key_id}")
    typer.echo(f"deleted {key_id}")


def _table(keys: list[dict[str, Any]]) -> Table:
    table = Table(*_COLUMNS)
    for key in keys:
        table.add_row(*(_cell(key[column]) for column in _COLUMNS))
    return table


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return ", ".join(value) if isinstance(value, list) else str(value)
