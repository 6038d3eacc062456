"""``tidegate keys``: the admin API's keys from a terminal."""

from typing import Annotated, Any

import typer

from gateway.commands.admin_client import DEFAULT_URL, AdminClient, AdminKey, AdminUrl, AsJson
from gateway.commands.definitions import LimitOption
from gateway.commands.tables import limits_of, path_of, print_found

app = typer.Typer(help="List, create, show, update, rotate and delete API keys.", no_args_is_help=True)
_COLUMNS = ("id", "name", "tenant", "tier", "role", "models", "limits", "hint", "expires")

KeyId = Annotated[str, typer.Argument(help="The key's id.")]
ModelOption = Annotated[
    list[str] | None,
    typer.Option("--model", help="A model or glob it may use; repeatable. All if not given."),
]
ExpiresOption = Annotated[
    str | None, typer.Option(help="ISO 8601 time with zone, as 2027-01-01T00:00:00Z.", show_default=False)
]


@app.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's keys.")] = None,
    role: Annotated[str | None, typer.Option(help="client, viewer, operator or owner.")] = None,
    url: AdminUrl = DEFAULT_URL,
    admin_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """List the stored keys."""
    client = AdminClient(url, admin_key)
    given = {"tenant": tenant, "role": role, "limit": "1000"}
    found = client.get_pages(
        "/admin/keys", {name: value for name, value in given.items() if value is not None}
    )
    print_found(found, _COLUMNS, as_json=as_json)


@app.command()
def create(  # noqa: PLR0913, PLR0917 - the options of a key
    name: Annotated[str, typer.Argument(help="What to call the key.")],
    tenant: Annotated[str, typer.Option(help="Whom its use is counted for.")] = "default",
    tier: Annotated[str | None, typer.Option(help="Its tier. [default: its tenant's, or default]")] = None,
    role: Annotated[
        str, typer.Option(help="client; or viewer, operator, owner for the admin API")
    ] = "client",
    model: ModelOption = None,
    expires: ExpiresOption = None,
    limit: LimitOption = None,
    url: AdminUrl = DEFAULT_URL,
    admin_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once."""
    client = AdminClient(url, admin_key)
    given = {"tier": tier, "models": model, "expires": expires, "limits": limits_of(limit) if limit else None}
    wanted: dict[str, Any] = {"name": name, "tenant": tenant, "role": role}
    wanted |= {field: value for field, value in given.items() if value}
    _print_secret(client, client.post("/admin/keys", wanted), as_json=as_json)


@app.command()
def show(
    key_id: KeyId, url: AdminUrl = DEFAULT_URL, admin_key: AdminKey = None, as_json: AsJson = False
) -> None:
    """Show one key, without its secret."""
    client = AdminClient(url, admin_key)
    print_found(client.get(path_of("keys", key_id)), _COLUMNS, as_json=as_json)


@app.command()
def update(  # noqa: PLR0913, PLR0917 - the options of a key
    key_id: KeyId,
    name: Annotated[str | None, typer.Option(help="What to call it.", show_default=False)] = None,
    tier: Annotated[str | None, typer.Option(help="Its tier.", show_default=False)] = None,
    model: ModelOption = None,
    all_models: Annotated[bool, typer.Option("--all-models", help="Let it use every model.")] = False,
    expires: Annotated[
        str | None, typer.Option(help="A time with zone, or never.", show_default=False)
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", help="All its own limits anew, as requests=10/minute; repeatable."),
    ] = None,
    url: AdminUrl = DEFAULT_URL,
    admin_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Change what is given of a key, and leave the rest."""
    client = AdminClient(url, admin_key)
    changes: dict[str, Any] = {"name": name, "tier": tier, "models": model, "expires": expires}
    changes = {field: value for field, value in changes.items() if value}
    if all_models:
        changes["models"] = None
    if expires == "never":
        changes["expires"] = None
    if limit:
        changes["limits"] = {name: value for name, value in limits_of(limit).items() if value is not None}
    changed = client.patch(path_of("keys", key_id), changes)
    print_found(changed, _COLUMNS, as_json=as_json)


@app.command()
def rotate(
    key_id: KeyId,
    grace: Annotated[str, typer.Option(help="How long the old secret opens the same, as 1h.")] = "0s",
    url: AdminUrl = DEFAULT_URL,
    admin_key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Give a key another secret and print it, this once."""
    client = AdminClient(url, admin_key)
    made = client.post(f"{path_of('keys', key_id)}/rotate", {}, {"grace": grace})
    _print_secret(client, made, as_json=as_json)


@app.command()
def delete(key_id: KeyId, url: AdminUrl = DEFAULT_URL, admin_key: AdminKey = None) -> None:
    """Delete a key; it opens nothing from the next second on."""
    AdminClient(url, admin_key).delete(path_of("keys", key_id))
    typer.echo(f"deleted {key_id}")


def _print_secret(client: AdminClient, made: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        client.print_json(made)
    else:
        typer.echo(made["key"])
        typer.echo(f"{made['id']} for tenant {made['tenant']}, tier {made['tier']}; shown this once.")
