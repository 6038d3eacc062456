"""``tidegate serve``: prepare the database and the first keys, then supervise."""

import asyncio
import shlex
import sys
from dataclasses import dataclass

import httpx
import orjson

from gateway.clock import wall_time
from gateway.logs import configure_logging
from gateway.settings import Settings
from gateway.stores.database import open_database
from gateway.stores.keys import KeyStore, Role
from gateway.stores.migration import migrate
from gateway.supervisor import Launch, Supervisor

_READY_INTERVAL = 0.3


@dataclass(frozen=True, slots=True)
class FirstKeys:
    """Secrets made on the first start; None where there was a key already."""

    client: str | None
    admin: str | None


async def run(launch: Launch) -> None:
    """Serve until told to stop. Raises ConfigError, and OSError where it can't listen."""
    configure_logging(launch.log_level)
    settings = launch.read()
    made = await _prepare(settings)
    greeters: set[asyncio.Task[None]] = set()

    def greet(url: str) -> None:
        greeters.add(asyncio.create_task(_greet(url, settings, made)))

    await Supervisor(launch, settings, on_listening=greet).run()
    for greeter in greeters:
        greeter.cancel()


async def _prepare(settings: Settings) -> FirstKeys:
    # A migration takes as long as it takes, here or in another gateway that this one waits for.
    database = open_database(settings.database.get_secret_value(), command_timeout=None)
    try:
        await migrate(database)
        keys = KeyStore(database, wall_time)
        stored = {key.role for key in await keys.list()}
        client = admin = None
        if not settings.keys and Role.CLIENT not in stored:
            _, client = await keys.create(name="first", tenant="default")
        if settings.admin.key is None and Role.OWNER not in stored:
            _, admin = await keys.create(name="first admin", tenant="", role=Role.OWNER)
    finally:
        await database.dispose()
    return FirstKeys(client, admin)


async def _greet(url: str, settings: Settings, made: FirstKeys) -> None:
    """Wait until the gateway can serve, then say how to use it."""
    _say(f"tidegate: listening on {url}, getting ready ...")
    waiting: list[str] = []
    async with httpx.AsyncClient() as client:
        while True:
            missing = await _missing(client, url)
            if not missing:
                break
            if missing != waiting:
                waiting = missing
                _say(*(f"tidegate: waiting: {what}" for what in waiting))
            await asyncio.sleep(_READY_INTERVAL)  # noqa: TID251 - a person waits for this
    _say(*_greeting(url, settings, made))


async def _missing(client: httpx.AsyncClient, url: str) -> list[str]:
    try:
        response = await client.get(f"{url}/readyz")
    except httpx.TransportError:
        return ["the first worker is starting"]
    missing: list[str] = response.json().get("missing", [])
    return missing


def _greeting(url: str, settings: Settings, made: FirstKeys) -> list[str]:
    model = next((name for name in settings.models if not set("*?[") & set(name)), "MODEL")
    question = {
        "model": model,
        "messages": [{"role": "user", "content": "Write one sentence about the sea."}],
        "stream": True,
    }
    lines = ["", "Tidegate is ready.", "", f"  Base URL   {url}/v1"]
    if made.client is not None:
        lines.append(f"  API key    {made.client}   (shown this once)")
    if made.admin is not None:
        lines.append(f"  Admin key  {made.admin}   (shown this once; export it as TIDEGATE_ADMIN_KEY)")
    bearer = made.client or "<your key>"
    lines += [
        f"  Docs       {url}/docs",
        "",
        "Try it:",
        "",
        f"  curl -N {url}/v1/chat/completions \\",
        f"    -H 'Authorization: Bearer {bearer}' -H 'Content-Type: application/json' \\",
        f"    -d {shlex.quote(orjson.dumps(question).decode())}",
        "",
    ]
    return lines


def _say(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
