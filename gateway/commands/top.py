"""``tidegate top``: the gateway live in a terminal."""

import asyncio
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from gateway.clock import SystemClock
from gateway.commands.admin_client import DEFAULT_URL, AdminKey, AdminUrl, fail, require

if TYPE_CHECKING:
    from gateway.top.frame import Screen

_PICTURE_WIDTH = 130
_FONTS_FROM_ELSEWHERE = re.compile(r"@font-face\s*\{.*?\}\s*", re.DOTALL)


def show(
    url: AdminUrl = DEFAULT_URL,
    admin_key: AdminKey = None,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end, as into a pipe.")] = False,
    sort: Annotated[str, typer.Option(help="state, busy, TTFT, errors or name.")] = "state",
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.svg", help="Draw a picture instead, after some seconds.")
    ] = None,
) -> None:
    """Watch the gateway: upstreams, tiers, cache and cost, once a second. A viewer's key is enough."""
    from gateway.top import app  # noqa: PLC0415 - only this command needs the views
    from gateway.top.feed import Refused  # noqa: PLC0415
    from gateway.top.frame import ORDERS, Screen  # noqa: PLC0415

    if sort not in ORDERS:
        raise typer.BadParameter(f"sort by one of {', '.join(ORDERS)}")
    key, console, screen = require(admin_key), Console(), Screen(url, sort)
    live = console.is_terminal and not once and picture is None
    try:
        if live:
            asyncio.run(app.watch(screen, key, SystemClock(), console))
            return
        asyncio.run(app.look(screen, key, SystemClock(), rates=picture is not None))
    except Refused as error:
        fail(str(error))
    except KeyboardInterrupt:
        return
    if screen.lost is not None:
        fail(f"can't reach {url}: {screen.lost}")
    if picture is None:
        console.print(screen.draw(keys=False))
    else:
        _draw(screen, picture)


def _draw(screen: "Screen", picture: Path) -> None:
    paper = Console(record=True, width=_PICTURE_WIDTH, file=io.StringIO(), force_terminal=True)
    paper.print(screen.draw())
    svg = paper.export_svg(title="tidegate top", unique_id="top")
    try:
        picture.write_text(_FONTS_FROM_ELSEWHERE.sub("", svg), encoding="utf-8")
    except OSError as error:
        fail(f"can't write {picture}: {error.strerror}")
