"""How a layer is written: a generator that opens the service inside, yields its reply once, and closes it.

``contextlib.asynccontextmanager`` does the same for any function, and half of what it costs is for that:
its managers can be used as decorators, keep their arguments and carry a docstring. A call passes ten layers.
"""

from collections.abc import AsyncGenerator, Callable
from functools import wraps
from types import TracebackType
from typing import TypeVar

from policies.service import Call, Reply

_L = TypeVar("_L")
_END = object()


class Opening:
    """The reply of one layer's generator, as an asynchronous context manager."""

    __slots__ = ("_generator",)

    def __init__(self, generator: AsyncGenerator[Reply]) -> None:
        self._generator = generator

    async def __aenter__(self) -> Reply:
        return await anext(self._generator)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        generator = self._generator
        if error is None:
            if await anext(generator, _END) is not _END:
                raise RuntimeError("a layer yielded a second reply")
            return False
        try:
            await generator.athrow(error)
        except StopAsyncIteration:
            return True
        except BaseException as raised:
            if raised is not error:
                raise
            error.__traceback__ = trace  # without the frames of each generator that it went through
            return False
        raise RuntimeError("a layer yielded a second reply after an error")


def opening(generator: Callable[[_L, Call], AsyncGenerator[Reply]]) -> Callable[[_L, Call], Opening]:
    """Make a layer's ``__call__`` of a generator that yields one reply.

    What is raised where the reply is used is raised at the ``yield``; what isn't raised again is over.
    """

    @wraps(generator)
    def open_reply(layer: _L, call: Call) -> Opening:
        return Opening(generator(layer, call))

    return open_reply
