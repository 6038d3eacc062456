import asyncio
from contextlib import aclosing, asynccontextmanager

import pytest

from policies.deadline import Deadline, DeadlineOptions
from policies.errors import DeadlineExceeded, StreamInterrupted, UpstreamTimeout
from policies.facts import TimerExpired
from policies.service import Event, Reply
from policies.timers import SilenceTimers, TimerOptions
from tests.kit.upstream import RecordingMeter, ScriptedUpstream, Wait, make_call, read_text
from tests.kit.virtual_time import LoopClock, run_virtual


def timed(upstream, **limits):
    meter = RecordingMeter()
    options = TimerOptions(**{"first_token": 10, "stall": 5, "unary": 60, **limits})
    return SilenceTimers(upstream, upstream="up", options=options, clock=LoopClock(), meter=meter), meter


class Deltas:
    """Streams a first token, then events at the given pauses: True for content, False for an empty delta."""

    def __init__(self, *steps):
        self.steps = steps
        self.closed = 0

    async def events(self):
        try:
            yield Event(data=b"a", text="a")
            for pause, content in self.steps:
                await asyncio.sleep(pause)
                yield Event(data=b"b", content=content, text="b" if content else "")
        finally:
            self.closed += 1

    def __call__(self, call):
        return self.open()

    @asynccontextmanager
    async def open(self):
        async with aclosing(self.events()) as events:
            yield Reply(events=events, upstream="up", model="m", stream=True)


def test_a_good_stream_passes_however_long_it_is():
    service, meter = timed(ScriptedUpstream([[Wait(9), "a", *[Wait(4), "b"] * 50]]))
    assert run_virtual(read_text(service, make_call())) == "a" + "b" * 50
    assert not meter.facts


def test_no_first_token_in_time():
    upstream = ScriptedUpstream([[Wait(11), "a"]])
    service, meter = timed(upstream)

    async def main():
        with pytest.raises(UpstreamTimeout):
            await read_text(service, make_call())
        assert asyncio.current_task().cancelling() == 0
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 10
    assert upstream.active == 0
    assert [(fact.timer, fact.seconds) for fact in meter.of(TimerExpired)] == [("first_token", 10)]


def test_a_whole_body_has_a_limit_of_its_own():
    service, _ = timed(ScriptedUpstream([[Wait(50), "whole"]]))
    assert run_virtual(read_text(service, make_call(stream=False))) == "whole"
    service, meter = timed(ScriptedUpstream([[Wait(61), "whole"]]))
    with pytest.raises(UpstreamTimeout):
        run_virtual(read_text(service, make_call(stream=False)))
    assert meter.of(TimerExpired)[0].timer == "unary"


def test_a_stall_interrupts_the_stream_where_it_is_read():
    upstream = ScriptedUpstream([["a", Wait(4), "b", Wait(60), "c"]])
    service, meter = timed(upstream)

    async def main():
        seen = []

        async def read():
            async with service(make_call()) as reply:
                async for event in reply.events:
                    seen.append(event.text)  # noqa: PERF401 - what came before the error counts

        with pytest.raises(StreamInterrupted):
            await read()
        assert asyncio.current_task().cancelling() == 0
        return seen, asyncio.get_running_loop().time()

    assert run_virtual(main()) == (["a", "b"], 9)
    assert upstream.active == 0
    assert meter.of(TimerExpired)[0].timer == "stall"


def test_what_carries_no_content_resets_nothing():
    deltas = Deltas((2, False), (2, False), (2, False), (2, True))
    service, _ = timed(deltas)

    async def main():
        with pytest.raises(StreamInterrupted):
            await read_text(service, make_call())
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 5
    assert deltas.closed == 1


def test_content_resets_the_stall_timer():
    service, _ = timed(Deltas((2, False), (2, True), (2, False), (2, True), (4, True)))
    assert run_virtual(read_text(service, make_call())) == "abbb"


def test_a_slow_reader_is_not_a_stall():
    service, _ = timed(Deltas((1, True), (1, False), (1, True)))

    async def main():
        text = ""
        async with service(make_call()) as reply:
            async for event in reply.events:
                text += event.text
                await asyncio.sleep(60)
        return text

    assert run_virtual(main()) == "abb"


def test_the_stall_limit_may_be_shorter_than_the_first():
    service, _ = timed(Deltas((3, True)), first_token=100, stall=2)

    async def main():
        with pytest.raises(StreamInterrupted):
            await read_text(service, make_call())
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 2


@pytest.mark.parametrize("part", [[Wait(9), "a"], ["a", Wait(4), "b"]])
def test_a_cancellation_is_passed_on(part):
    upstream = ScriptedUpstream([part])
    service, meter = timed(upstream)

    async def main():
        task = asyncio.create_task(read_text(service, make_call()))
        await asyncio.sleep(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(main())
    assert upstream.active == 0
    assert not meter.facts


@pytest.mark.parametrize("pause", [10, 5])
def test_a_cancellation_at_the_very_moment_is_passed_on(pause):
    upstream = ScriptedUpstream([[Wait(99), "a"]] if pause == 10 else [["a", Wait(99), "b"]])
    service, _ = timed(upstream)

    async def main():
        task = asyncio.create_task(read_text(service, make_call()))
        asyncio.get_running_loop().call_later(pause, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(main())
    assert upstream.active == 0


def test_without_limits_nothing_is_watched():
    service, _ = timed(ScriptedUpstream([[Wait(9999), "a", Wait(9999), "b"]]), first_token=None, stall=None)
    assert run_virtual(read_text(service, make_call())) == "ab"


def test_events_may_be_read_by_another_task_than_the_opener():
    service, _ = timed(Deltas((1, True), (60, True)))

    async def main():
        async with service(make_call()) as reply:

            async def read():
                return [event async for event in reply.events]

            with pytest.raises(StreamInterrupted):
                await asyncio.create_task(read())
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 6


def test_leaving_early_closes_the_stream():
    deltas = Deltas((1, True), (1, True))
    service, _ = timed(deltas)

    async def main():
        async with service(make_call()) as reply, aclosing(reply.events) as events:
            async for _ in events:
                break

    run_virtual(main())
    assert deltas.closed == 1


@pytest.mark.parametrize("limits", [{"first_token": 0}, {"stall": -1}, {"unary": 0}])
def test_limits_are_positive(limits):
    with pytest.raises(ValueError, match="above 0"):
        TimerOptions(**limits)


def limited(upstream, total=20):
    return Deadline(upstream, options=DeadlineOptions(total), clock=LoopClock())


@pytest.mark.parametrize("part", [[Wait(30), "a"], ["a", Wait(30), "b"]])
def test_the_deadline_ends_a_call(part):
    upstream = ScriptedUpstream([part])

    async def main():
        with pytest.raises(DeadlineExceeded):
            await read_text(limited(upstream), make_call())
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 20
    assert upstream.active == 0


def test_the_deadline_counts_from_the_arrival_and_the_nearer_one_wins():
    call = make_call(arrived=-5.0)
    run_virtual(read_text(limited(ScriptedUpstream([["a"]])), call))
    assert call.deadline == 15
    call = make_call(deadline=3.0)
    with pytest.raises(DeadlineExceeded):
        run_virtual(read_text(limited(ScriptedUpstream([[Wait(4), "a"]])), call))


def test_no_limit_means_none():
    service = limited(ScriptedUpstream([[Wait(1e6), "a"]]), None)
    assert run_virtual(read_text(service, make_call())) == "a"


def test_another_timeout_is_not_the_deadline():
    with pytest.raises(TimeoutError):
        run_virtual(read_text(limited(ScriptedUpstream([[TimeoutError()]])), make_call()))


def test_a_total_is_positive():
    with pytest.raises(ValueError, match="above 0"):
        DeadlineOptions(0)
