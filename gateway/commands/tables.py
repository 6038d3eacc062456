"""How the commands show what the admin API answers."""

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from gateway.commands.admin_client import AdminClient, fail

_WIDEST = 10_000


def print_table(columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """Print a row for each, with these of its members; the first is its name, which is never cut."""
    table = Table(
        *(Column(column, overflow="fold", no_wrap=place == 0) for place, column in enumerate(columns))
    )
    for row in rows:
        table.add_row(*(escape(_cell(row[column])) for column in columns))
    Console().print(table)


def print_whole(table: Table) -> None:
    """Print a table as wide as it is, also where the terminal is narrower: no figure is ever cut."""
    console = Console()
    unbounded = console.options.update(max_width=_WIDEST)
    console.width = max(console.width, console.measure(table, options=unbounded).maximum)
    console.print(table)


def print_found(found: Any, columns: Sequence[str], *, as_json: bool) -> None:
    """Print one or several, as the JSON that they came as or as a table."""
    if as_json:
        AdminClient.print_json(found)
    else:
        print_table(columns, found if isinstance(found, list) else [found])


def limits_of(given: list[str]) -> dict[str, Any]:
    """Limits from `requests=10/minute,50/day` and the like; an empty one takes a limit away."""
    limits: dict[str, Any] = {}
    for each in given:
        name, equals, amounts = each.partition("=")
        if not equals:
            fail(f"--limit {each}: write it as requests=10/minute,50/day, or requests= for none")
        if name == "concurrency":
            limits[name] = int(amounts) if amounts.isdecimal() else amounts or None
        else:
            limits[name] = amounts.split(",") if amounts else None
    return limits


def path_of(*parts: str) -> str:
    """A path below /admin."""
    return "/".join(["/admin", *(quote(part, safe="") for part in parts)])


def _cell(value: object) -> str:
    if value is None or value in ({}, []):
        return "-"
    if isinstance(value, dict):
        return "; ".join(f"{name} {_cell(part)}" for name, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
