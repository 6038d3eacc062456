"""The engine: one thread that owns the model, and the asyncio side that talks to it.

    asyncio side                        engine thread
    submit, abort  -> command queue ->    worker: scheduler -> runner -> sampler
    Generation     <- one call a step <-  events

Torch releases the GIL inside its products, so HTTP stays responsive while a step runs.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from collections.abc import Sequence as Series
from queue import SimpleQueue

from local_backend.clock import now
from local_backend.engine.admission import Admission
from local_backend.engine.blocks import root
from local_backend.engine.load import Load
from local_backend.engine.options import EngineOptions
from local_backend.engine.request import Event, Finished, SamplingParams, Sequence
from local_backend.engine.runner import ModelRunner
from local_backend.engine.worker import Abort, Command, Worker


class EngineStopped(Exception):
    """The engine has failed or is shutting down."""


class Generation:
    """Sequences submitted together, seen from asyncio: an async iterator of (index, event).

    It ends after every sequence's Finished.
    """

    def __init__(self, count: int, abort: Callable[[int], None]) -> None:
        self._abort = abort
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._unfinished = set(range(count))

    def put(self, index: int, event: Event) -> None:
        """Deliver an event; called on the event loop."""
        if isinstance(event, Finished):
            self._unfinished.discard(index)
        self._events.put_nowait((index, event))

    async def __aiter__(self) -> AsyncIterator[tuple[int, Event]]:
        while self._unfinished or not self._events.empty():
            yield await self._events.get()

    def abort(self, index: int | None = None) -> None:
        """Stop one sequence, or all, at the engine's next step; those that have ended are left alone."""
        for each in self._unfinished if index is None else self._unfinished & {index}:
            self._abort(each)


class Engine:
    """Start it inside a running event loop; everything else belongs to that loop's thread too."""

    def __init__(self, runner: ModelRunner, options: EngineOptions) -> None:
        self.options = options
        self.admission = Admission(options.scheduling.max_concurrency, options.max_queue)
        self._on_failure: list[Callable[[], None]] = []
        self._commands: SimpleQueue[Command] = SimpleQueue()
        self._places: dict[int, tuple[Generation, int]] = {}
        self._next_id = 0
        self._accepting = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker = Worker(runner, options, self._commands, self._post, self._post_failure)
        self._thread = threading.Thread(target=self._worker.run, name="engine", daemon=True)

    @property
    def is_running(self) -> bool:
        """Whether new generations are taken."""
        return self._accepting and self._thread.is_alive()

    @property
    def load(self) -> Load:
        """How busy it was at its last step."""
        return self._worker.load

    def on_failure(self, callback: Callable[[], None]) -> None:
        """Call back on the event loop when the model fails."""
        self._on_failure.append(callback)

    def start(self) -> None:
        """Start the engine's thread; events arrive on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._accepting = True
        self._thread.start()

    def submit(
        self,
        prompts: Series[Series[int]],
        params: Series[SamplingParams | None],
        *,
        begun: Series[int] = (),
        tenant: str = "",
        priority: int = 0,
    ) -> Generation:
        """Queue a sequence for each prompt and its params, all or none; raises QueueFull or EngineStopped.

        Without params a prompt's embedding is what comes of it. `begun` are tokens that each answer has
        already, and that count as generated.

        A lower priority goes first. Cached prefixes are shared within a tenant alone.
        """
        if not self.is_running:
            raise EngineStopped("the engine is not running")
        self.admission.enter(len(prompts), now())
        first = self._next_id
        self._next_id += len(prompts)
        prefix = root(self.options.model, tenant)
        generation = Generation(len(prompts), lambda index: self._commands.put(Abort(first + index)))
        for index, (prompt, chosen) in enumerate(zip(prompts, params, strict=True)):
            self._places[first + index] = (generation, index)
            self._commands.put(Sequence(first + index, tuple(prompt), chosen, priority, prefix, list(begun)))
        return generation

    def abort_all(self) -> None:
        """Abort every open generation."""
        for request_id in self._places:
            self._commands.put(Abort(request_id))

    async def stop(self) -> None:
        """Abort what is open and end the thread."""
        self._accepting = False
        self._commands.put(None)
        await asyncio.to_thread(self._thread.join)

    def _post(self, events: list[tuple[int, Event]]) -> None:
        """Called by the engine's thread: hand a step's events to the loop in one call."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._dispatch, events)

    def _post_failure(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._fail)

    def _fail(self) -> None:
        self._accepting = False
        for callback in self._on_failure:
            callback()

    def _dispatch(self, events: list[tuple[int, Event]]) -> None:
        for request_id, event in events:
            generation, index = self._places[request_id]
            generation.put(index, event)
            if isinstance(event, Finished):
                del self._places[request_id]
                self.admission.leave(now())
