import asyncio

import pytest

from policies.cache.memory import MemoryCache
from policies.errors import DeadlineExceeded, StreamInterrupted, UpstreamUnavailable
from policies.facts import CallCoalesced
from policies.observe import ObserveAttempts
from tests.kit.answering import AnsweringUpstream
from tests.kit.caching import Scene, ask, now
from tests.kit.upstream import RecordingMeter
from tests.kit.virtual_time import LoopClock, run_virtual


async def gathered(scene, calls):
    return await asyncio.gather(*(scene.read(call) for call in calls), return_exceptions=True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_hundred_at_once_are_one_call_upstream(stream):
    async def story():
        scene = Scene(AnsweringUpstream(pause=1))
        answers = await gathered(scene, [ask(stream=stream) for _ in range(100)])
        assert [state for state, _ in answers] == ["miss"] + ["hit"] * 99
        assert all(answer == answers[0][1] for _, answer in answers)
        assert scene.upstream.opened == 1
        assert len(scene.meter.of(CallCoalesced)) == 99
        assert len(scene.coalesce) == 0

    run_virtual(story())


class SlowCache(MemoryCache):
    """Looks at once and tells what it saw 5 seconds later, as a server or a disk may."""

    async def get(self, key):
        seen = self.at_hand(key)
        await asyncio.sleep(5)
        return seen


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_still_looks_when_its_answer_lands_asks_nobody(stream):
    async def story():
        scene = Scene(AnsweringUpstream(pause=1), store=SlowCache(now))

        async def later(seconds):
            await asyncio.sleep(seconds)
            return await scene.read(ask(stream=stream))

        (first, answer), *others = await asyncio.gather(*(later(at) for at in range(10)))
        assert first == "miss"
        assert others == [("hit", answer)] * 9
        assert scene.upstream.opened == 1

    run_virtual(story())


def test_who_comes_late_gets_the_stream_from_its_beginning_and_then_live():
    async def story():
        scene = Scene(AnsweringUpstream(["one two three four"], pause=10))

        async def watch(after):
            await asyncio.sleep(after)
            async with scene.service(ask(stream=True)) as reply:
                return [(event.text, now()) async for event in reply.events if event.text]

        first, late = await asyncio.gather(watch(0), watch(25))
        assert first == [("one", 10), (" two", 20), (" three", 30), (" four", 40)]
        assert late == [("one", 25), (" two", 25), (" three", 30), (" four", 40)]
        assert scene.upstream.opened == 1

    run_virtual(story())


def test_what_another_call_was_waited_for_is_counted():
    async def story():
        scene = Scene(AnsweringUpstream(["one two"], pause=10))
        leader, follower, late = (ask(stream=True) for _ in range(3))

        async def read(call, after):
            await asyncio.sleep(after)
            await scene.read(call)

        await asyncio.gather(read(leader, 0), read(follower, 4), read(late, 15))
        assert [call.coalesced for call in (leader, follower, late)] == [0, 6, 0]
        joined = scene.meter.of(CallCoalesced)
        assert [(fact.call, fact.leader) for fact in joined] == [(follower, leader), (late, leader)]

    run_virtual(story())


@pytest.mark.parametrize("after", [5, 15])
def test_a_leader_that_leaves_takes_only_its_copy_along(after):
    """Before the first content, and in the stream; who stays pays."""

    async def story():
        scene = Scene(AnsweringUpstream(["one two three"], pause=10))
        leader = asyncio.create_task(scene.read(ask(stream=True)))
        await asyncio.sleep(1)

        async def follow():
            async with scene.service(ask(stream=True)) as reply:
                text = "".join([event.text async for event in reply.events])
            return text, reply.cached.served, reply.usage

        followers = [asyncio.create_task(follow()) for _ in range(3)]
        await asyncio.sleep(after)
        leader.cancel()
        answers = await asyncio.gather(*followers)
        assert [text for text, _, _ in answers] == ["one two three"] * 3
        assert sorted(served for _, served, _ in answers) == [False, True, True]
        assert [usage for _, served, usage in answers if served] == [None, None]
        assert next(usage for _, served, usage in answers if not served).output == 2
        assert scene.upstream.opened == 1
        assert (await scene.read(ask(stream=True)))[0] == "hit"

    run_virtual(story())


@pytest.mark.parametrize("after", [5, 15])
def test_who_pays_has_the_attempts(after):
    async def story():
        upstream = AnsweringUpstream(["one two three"], pause=10)
        scene = Scene(
            ObserveAttempts(upstream, upstream="up", model="m", clock=LoopClock(), meter=RecordingMeter())
        )
        first, heir, third = (ask(stream=True) for _ in range(3))
        tasks = [asyncio.create_task(scene.read(call)) for call in (first, heir, third)]
        await asyncio.sleep(after)
        tasks[0].cancel()
        await asyncio.wait({tasks[0]})
        assert [attempt.outcome for attempt in first.attempts] == ["pending"]
        await asyncio.gather(*tasks[1:])
        assert [attempt.outcome for attempt in heir.attempts] == ["ok"]
        assert third.attempts == []

    run_virtual(story())


def test_when_all_have_left_the_upstream_is_let_go():
    async def story():
        scene = Scene(AnsweringUpstream(["one two"], pause=10))
        tasks = [asyncio.create_task(scene.read(ask(stream=True))) for _ in range(5)]
        await asyncio.sleep(15)
        assert scene.upstream.active == 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (scene.upstream.active, len(scene.coalesce)) == (0, 0)
        assert now() == 15
        assert (await scene.read(ask(stream=True)))[0] == "miss"

    run_virtual(story())


@pytest.mark.parametrize(
    "failure", [UpstreamUnavailable("reset"), DeadlineExceeded("the leader's"), RuntimeError("bug")]
)
def test_a_leader_that_fails_hurts_no_follower(failure):
    async def story():
        scene = Scene(AnsweringUpstream([failure, "well"], pause=1))
        leader, *followers = await gathered(scene, [ask(stream=True) for _ in range(10)])
        assert leader is failure
        if isinstance(failure, RuntimeError):
            assert all(follower is failure for follower in followers)
        else:
            assert sorted(followers) == [("hit", "well")] * 8 + [("miss", "well")]
            assert scene.upstream.opened == 2

    run_virtual(story())


def test_an_outage_is_told_to_all_after_two_attempts():
    async def story():
        down = UpstreamUnavailable("down")
        scene = Scene(AnsweringUpstream([down], pause=1))
        answers = await gathered(scene, [ask() for _ in range(100)])
        assert all(answer is down for answer in answers)
        assert scene.upstream.opened == 2

    run_virtual(story())


def test_a_break_in_the_stream_reaches_everybody_after_what_came():
    async def story():
        cut = StreamInterrupted("cut")
        scene = Scene(AnsweringUpstream(["one two three"], pause=1, breaks=(2, cut)))
        seen = []

        async def read():
            got = []
            seen.append(got)
            async with scene.service(ask(stream=True)) as reply:
                got += [event.text async for event in _noting(reply.events, got)]

        async def _noting(events, got):
            async for event in events:
                got.append(event.text)
                yield event

        ends = await asyncio.gather(*(read() for _ in range(3)), return_exceptions=True)
        assert all(end is cut for end in ends)
        assert seen == [["one", " two"]] * 3
        assert scene.upstream.opened == 1

    run_virtual(story())


@pytest.mark.parametrize(
    "different",
    [
        {"tenant": "other"},
        {"seed": 1},
        {"stream": True},
        {"temperature": 1, "control": "no-store"},
        {"control": "no-cache"},
        {"control": "no-store"},
    ],
)
def test_other_calls_are_not_joined(different):
    async def story():
        scene = Scene(AnsweringUpstream(pause=1))
        other = ask(different.pop("control", ""), **different)
        await gathered(scene, [ask(), other])
        assert scene.upstream.opened == 2

    run_virtual(story())


def test_streams_that_want_usage_and_those_that_do_not_are_apart():
    async def story():
        scene = Scene(AnsweringUpstream(pause=1))
        wanting = ask(stream=True, stream_options={"include_usage": True})
        await gathered(scene, [ask(stream=True), wanting])
        assert scene.upstream.opened == 2

    run_virtual(story())
