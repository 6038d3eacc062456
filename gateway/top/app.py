"""One frame, or a live view until somebody has seen enough."""

import asyncio
from contextlib import aclosing

from rich.console import Console
from rich.live import Live

from gateway.top.feed import follow
from gateway.top.frame import Screen
from gateway.top.keyboard import listening
from policies.ports import Clock

_WORKERS_VIEWS = 3
_RATES_VIEWS = 8
"""Views, of which one comes a second. The ledger behind the rates is read every five."""


async def look(screen: Screen, admin_key: str, clock: Clock, *, rates: bool = False) -> None:
    """Fill the screen: until all workers are heard and, with ``rates``, these known; at most some seconds.

    The screen tells in ``lost`` why that can't be. Raises Refused.
    """
    patience = _RATES_VIEWS if rates else _WORKERS_VIEWS
    async with aclosing(follow(screen.url, admin_key, clock)) as telling:
        async for told in telling:
            screen.take(told)
            patience -= 1
            view = screen.view
            heard = view is not None and view.workers >= view.of
            if screen.lost is not None or not patience:
                return
            if heard and (not rates or screen.pace.tokens_per_second):
                return


async def watch(screen: Screen, admin_key: str, clock: Clock, console: Console) -> None:
    """Show the gateway until q is pressed. Raises Refused."""
    enough = asyncio.Event()
    with Live(get_renderable=screen.draw, console=console, screen=True, auto_refresh=False) as live:

        def pressed(key: str) -> None:
            if key == "q":
                enough.set()
            elif key == "s":
                screen.sort_by_next()
                live.refresh()

        async def show() -> None:
            async for told in follow(screen.url, admin_key, clock):
                screen.take(told)
                live.refresh()

        with listening(pressed):
            live.refresh()
            showing, ended = asyncio.create_task(show()), asyncio.create_task(enough.wait())
            try:
                await asyncio.wait((showing, ended), return_when=asyncio.FIRST_COMPLETED)
            finally:
                ended.cancel()
                showing.cancel()
    if showing.done():
        await showing
