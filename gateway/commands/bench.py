"""``tidegate bench``: load an OpenAI-compatible endpoint, and say how long its users waited."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Annotated, TypeVar

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gateway.bench.picture import draw
from gateway.bench.plan import ClosedLoop, OpenLoop, Plan
from gateway.bench.prompts import Lengths
from gateway.bench.report import Run, document, table
from gateway.bench.sample import Sample
from gateway.bench.slo import Slo
from gateway.bench.target import Target, api_of
from gateway.clock import SystemClock, wall_time
from gateway.commands.admin_client import fail
from gateway.settings.units import duration

T = TypeVar("T")
_REQUESTS = 100
_CONCURRENCY = 4
_PROMPT = Lengths(100, 100)
_OUTPUT = Lengths(64, 64)


def _as(parse: Callable[[str], T]) -> Callable[[object], T]:
    def read(text: object) -> T:
        try:
            return parse(str(text))
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return read


def load(  # noqa: PLR0913, PLR0917 - the options of a command
    url: Annotated[
        str, typer.Argument(help="The gateway, or any server's OpenAI API: http://127.0.0.1:8080")
    ],
    model: Annotated[
        str | None, typer.Option(help="The model to ask for. [default: the first that the server lists]")
    ] = None,
    key: Annotated[
        str | None, typer.Option(envvar="TIDEGATE_KEY", help="The API key.", show_default=False)
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Open loop: so many requests a second, at random times.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help=f"Closed loop: so many at a time. [default: {_CONCURRENCY}]")
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option(min=1, help=f"Send so many at most. [default: {_REQUESTS} without --duration]"),
    ] = None,
    lasting: Annotated[
        float | None,
        typer.Option("--duration", parser=_as(duration), metavar="TIME", help="Send for so long, as 30s."),
    ] = None,
    slo: Annotated[
        Slo | None,
        typer.Option(
            parser=_as(Slo.parse),
            metavar="BOUNDS",
            help="Promises, for the goodput: ttft=1s,itl=100ms,total=10s.",
        ),
    ] = None,
    prompt_tokens: Annotated[
        Lengths,
        typer.Option(parser=_as(Lengths.parse), metavar="N|A-B", help="Length of prompts, about."),
    ] = _PROMPT,
    output_tokens: Annotated[
        Lengths,
        typer.Option(parser=_as(Lengths.parse), metavar="N|A-B", help="Most tokens of answers."),
    ] = _OUTPUT,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="Give a request up after so long.")] = "2m",
    obey_retry_after: Annotated[
        bool, typer.Option(help="Come back when a 429 or 503 says so, instead of counting it as an error.")
    ] = False,
    seed: Annotated[int, typer.Option(help="The same seed gives the same prompts at the same times.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write everything as JSON.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw the run.")] = None,
) -> None:
    """Load a gateway with streamed chats: TTFT, ITL, throughput, and goodput at an SLO."""
    from gateway.bench import runner  # noqa: PLC0415 - only this command needs aiohttp

    if rate is not None and concurrency is not None:
        raise typer.BadParameter("give --rate (open loop) or --concurrency (closed loop), not both")
    _check_files(json_file, picture)
    if requests is None and lasting is None:
        requests = _REQUESTS
    pace = ClosedLoop(concurrency or _CONCURRENCY) if rate is None else OpenLoop(rate)
    plan = Plan(pace, requests, lasting, prompt_tokens, output_tokens, seed)
    api = _as(api_of)(url)
    if model is None:
        try:
            model = asyncio.run(runner.first_model(api, key))
        except ValueError as error:
            fail(str(error))
    run = _run(plan, Target(api, model, key, _as(duration)(timeout), obey_retry_after), slo)
    Console().print(table(run))
    if json_file is not None:
        _write(json_file, orjson.dumps(document(run), option=orjson.OPT_INDENT_2))
    if picture is not None:
        _write(picture, draw(run).encode())
    if not run.summary.answered:
        fail("no request was answered")


def _check_files(json_file: Path | None, picture: Path | None) -> None:
    """End before the load what would lose its results after it."""
    if picture is not None and picture.suffix != ".svg":
        raise typer.BadParameter("the picture is an SVG: give it a name that ends with .svg")
    for file in filter(None, (json_file, picture)):
        if not file.parent.is_dir():
            raise typer.BadParameter(f"can't write {file}: there is no directory {file.parent}")


def _run(plan: Plan, target: Target, slo: Slo | None) -> Run:
    """Carry it out with a progress bar; Ctrl-C ends it early, and what came until then counts."""
    from gateway.bench import runner  # noqa: PLC0415

    clock = SystemClock()
    samples: list[Sample] = []
    at = datetime.fromtimestamp(wall_time(), UTC).isoformat(timespec="seconds")
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    began = clock.now()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("answered", total=plan.requests)
        failed = 0

        def record(sample: Sample) -> None:
            nonlocal failed
            samples.append(sample)
            failed += bool(sample.fault)
            progress.update(
                bar, advance=1, description=f"answered, {failed} failed" if failed else "answered"
            )

        def generator(purpose: str) -> Random:
            return Random(f"{plan.seed} {purpose}")  # noqa: S311 - repeatable load, no secret

        try:
            asyncio.run(runner.run(plan, target, clock, record, generator))
        except KeyboardInterrupt:
            console.print("Interrupted: these are the requests that had ended.")
    return Run(target.url, target.model, plan, slo, at, began, clock.now(), samples)


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        fail(f"can't write {path}: {error.strerror}")
