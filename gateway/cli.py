"""The command ``tidegate``."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gateway import __version__
from gateway.commands import audit, bench, keys, tenants, tiers, top, upstreams, usage
from gateway.settings import ConfigError, Settings, load

BAD_CONFIGURATION = 2
DEFAULT_CONFIG = Path("tidegate.yaml")

app = typer.Typer(
    name="tidegate",
    help="A resilient, OpenAI-compatible gateway for LLMs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(keys.app, name="keys")
app.add_typer(tiers.app, name="tiers")
app.add_typer(tenants.app, name="tenants")
app.add_typer(upstreams.app, name="upstreams")
app.command("usage")(usage.show)
app.command("audit")(audit.show)
app.command("bench")(bench.load)
app.command("top")(top.show)
errors = Console(stderr=True, soft_wrap=True, highlight=False)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="The configuration; ./tidegate.yaml if there is one.", show_default=False),
]


@app.command()
def serve(
    config: ConfigOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes.")] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run the gateway."""
    from gateway.commands.serve import run  # noqa: PLC0415 - only this command needs the server's imports
    from gateway.stores.migration import DatabaseUnusable  # noqa: PLC0415
    from gateway.supervisor import Launch  # noqa: PLC0415

    if config is None and DEFAULT_CONFIG.exists():
        config = DEFAULT_CONFIG
    launch = Launch(None if config is None else config.absolute(), host, port, workers, log_level)
    try:
        asyncio.run(run(launch))
    except ConfigError as error:
        _complain(error)
    except OSError as error:
        errors.print(f"tidegate: can't listen: {error.strerror or error}")
        raise typer.Exit(1) from None
    except DatabaseUnusable as error:
        errors.print(f"tidegate: can't open the database: {error}")
        raise typer.Exit(1) from None


@app.command()
def check(config: Annotated[Path, typer.Argument(help="The file to check.")]) -> None:
    """Validate a configuration: every problem with its line and a suggestion."""
    try:
        settings = load(config)
    except ConfigError as error:
        _complain(error)
    else:
        typer.echo(f"{config}: fine ({_summary(settings)})")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> None:
    """Run the command line."""
    app()


def _complain(error: ConfigError) -> None:
    errors.print(str(error), markup=False)
    raise typer.Exit(BAD_CONFIGURATION)


def _summary(settings: Settings) -> str:
    counts = {"provider": len(settings.providers), "model": len(settings.models), "key": len(settings.keys)}
    return ", ".join(f"{count} {what}{'' if count == 1 else 's'}" for what, count in counts.items())
