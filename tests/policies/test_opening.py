"""A layer's generator behaves as under ``contextlib.asynccontextmanager``, whatever it does."""

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest

from policies.opening import opening

ERRORS = [None, ValueError("used badly"), asyncio.CancelledError(), KeyError("key"), GeneratorExit()]


async def passing(_, call):
    call.append("opened")
    try:
        yield "reply"
    finally:
        call.append("closed")


async def suppressing(_, call):
    with suppress(BaseException):
        yield "reply"
    call.append("went on")


async def translating(_, call):
    try:
        yield "reply"
    except BaseException as error:
        raise LookupError("in other words") from error


async def raising_behind(_, call):
    yield "reply"
    raise OSError("at the end")


async def refusing(_, call):
    call.append("opened")
    raise PermissionError("before the reply")
    yield


async def silent(_, call):
    return
    yield


async def yielding_twice(_, call):
    with suppress(BaseException):
        yield "reply"
    yield "another"


async def stopping(_, call):
    yield "reply"
    raise StopAsyncIteration


GENERATORS = [passing, suppressing, translating, raising_behind, refusing, silent, yielding_twice, stopping]


async def used(opens, error):
    """What its user sees: the reply, what was noted, and the error with its cause."""
    noted = []
    try:
        async with opens(None, noted) as reply:
            noted.append(reply)
            if error is not None:
                raise error  # noqa: TRY301 - that it comes through is what is looked at
    except BaseException as raised:  # noqa: BLE001 - each kind is looked at
        kind = RuntimeError if isinstance(raised, StopAsyncIteration) else type(raised)
        return noted, kind, raised is error, type(raised.__cause__)
    return noted, None


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("error", ERRORS)
async def test_it_does_what_contextlib_does(generator, error):
    expected = await used(asynccontextmanager(generator), error)
    assert await used(opening(generator), error) == expected


async def test_an_error_keeps_the_traceback_of_where_it_was_raised():
    error = ValueError("used badly")
    with pytest.raises(ValueError, match="used badly") as caught:
        async with opening(passing)(None, []):
            raise error
    frames = []
    trace = caught.value.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert frames == ["test_an_error_keeps_the_traceback_of_where_it_was_raised"]
