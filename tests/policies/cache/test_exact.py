import asyncio

import pytest

from policies.cache.reuse import CacheOptions
from policies.errors import (
    InvalidRequest,
    NoHealthyUpstream,
    NotCached,
    Overloaded,
    RateLimited,
    UpstreamRejected,
    UpstreamUnavailable,
)
from policies.facts import CacheRefreshed
from tests.kit.answering import AnsweringUpstream
from tests.kit.caching import Scene, ask
from tests.kit.virtual_time import run_virtual

HOUR = 3600


async def idle(seconds):
    await asyncio.sleep(seconds)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("then", [False, True])
def test_either_way_of_asking_fills_and_either_is_answered(first, then):
    async def story():
        scene = Scene(AnsweringUpstream(["hello there"]))
        assert (await scene.read(ask(stream=first)))[0] == "miss"
        state, answer = await scene.read(ask(stream=then))
        assert state == "hit"
        assert (answer if then else answer["choices"][0]["message"]["content"]) == "hello there"
        assert scene.upstream.opened == 1

    run_virtual(story())


def test_a_hit_tells_its_age_its_tier_and_what_it_saved():
    async def story():
        scene = Scene(AnsweringUpstream())
        await scene.read(ask())
        await idle(100)
        async with scene.service(ask()) as reply:
            [_ async for _ in reply.events]
        assert reply.cached.age == 100
        assert (reply.cached.tier, reply.cached.saved.output, reply.usage) == ("memory", 2, None)
        assert reply.complete

    run_virtual(story())


@pytest.mark.parametrize(
    ("fields", "options", "control", "state"),
    [
        ({"temperature": 0}, {}, "", "hit"),
        ({"temperature": 0.0}, {}, "", "hit"),
        ({"temperature": 1, "seed": 0}, {}, "", "hit"),
        ({"temperature": 1}, {}, "", "bypass"),
        ({"temperature": None}, {}, "", "bypass"),
        ({"temperature": 1}, {"always": True}, "", "hit"),
        ({"temperature": 1}, {}, "max-age=60", "hit"),
        ({"temperature": 0}, {}, "no-store", "bypass"),
        ({"temperature": 0}, {}, "no-cache", "miss"),
        ({"temperature": 0}, {}, "max-age=0", "miss"),
        ({"temperature": 0}, {}, "max-age=soon", "miss"),
        ({"temperature": 0}, {}, "Max-Age=5 , unheard-of", "hit"),
    ],
)
def test_who_takes_part(fields, options, control, state):
    async def story():
        scene = Scene(AnsweringUpstream(["one", "two"]), CacheOptions(**options))
        await scene.read(ask(control, **fields))
        assert (await scene.read(ask(control, **fields)))[0] == state

    run_virtual(story())


def test_no_cache_is_answered_anew_and_stored():
    async def story():
        scene = Scene(AnsweringUpstream(["old", "new"]))
        for control, expected in (("", "old"), ("no-cache", "new"), ("", "new")):
            assert (await scene.read(ask(control, stream=True)))[1] == expected

    run_virtual(story())


def test_max_age_takes_nothing_older():
    async def story():
        scene = Scene(AnsweringUpstream(["old", "new"]))
        await scene.read(ask(stream=True))
        await idle(100)
        assert await scene.read(ask("max-age=100", stream=True)) == ("hit", "old")
        assert await scene.read(ask("max-age=99", stream=True)) == ("miss", "new")

    run_virtual(story())


def test_only_if_cached_asks_nobody():
    async def story():
        scene = Scene(AnsweringUpstream())
        with pytest.raises(NotCached):
            await scene.read(ask("only-if-cached"))
        assert scene.upstream.opened == 0
        await scene.read(ask())
        assert (await scene.read(ask("only-if-cached")))[0] == "hit"
        await idle(HOUR + 1)
        with pytest.raises(NotCached):
            await scene.read(ask("only-if-cached"))
        await idle(1)
        assert (scene.upstream.opened, len(scene.tasks)) == (1, 0)

    run_virtual(story())


def test_a_stale_answer_goes_out_at_once_while_one_new_one_is_fetched():
    async def story():
        scene = Scene(AnsweringUpstream(["old", "new"], pause=5))
        await scene.read(ask(stream=True))
        await idle(HOUR)
        start = asyncio.get_running_loop().time()
        for _ in range(10):
            assert await scene.read(ask(stream=True)) == ("stale", "old")
        assert asyncio.get_running_loop().time() == start
        await idle(60)
        assert await scene.read(ask(stream=True)) == ("hit", "new")
        assert scene.upstream.opened == 2
        (refreshed,) = scene.meter.of(CacheRefreshed)
        assert (refreshed.outcome, refreshed.reply.usage.output) == ("ok", 2)

    run_virtual(story())


def test_a_failed_refresh_harms_nobody():
    async def story():
        scene = Scene(AnsweringUpstream(["old", UpstreamUnavailable("down")]))
        await scene.read(ask())
        await idle(HOUR + 1)
        assert (await scene.read(ask()))[0] == "stale"
        await idle(1)
        (refreshed,) = scene.meter.of(CacheRefreshed)
        assert refreshed.outcome == "UpstreamUnavailable"
        assert (await scene.read(ask()))[0] == "stale"

    run_virtual(story())


@pytest.mark.parametrize(
    ("error", "excused"),
    [
        (NoHealthyUpstream("all out"), True),
        (UpstreamUnavailable("reset"), True),
        (Overloaded("full"), True),
        (RateLimited("yours"), False),
        (InvalidRequest("no"), False),
        (UpstreamRejected("no", status=400), False),
    ],
)
def test_in_an_outage_old_answers_are_given(error, excused):
    async def story():
        scene = Scene(AnsweringUpstream(["old", error]))
        await scene.read(ask(stream=True))
        await idle(HOUR + 700)
        if excused:
            assert await scene.read(ask(stream=True)) == ("stale", "old")
        else:
            with pytest.raises(type(error)) as caught:
                await scene.read(ask(stream=True))
            assert caught.value is error
        await idle(24 * HOUR)
        with pytest.raises(type(error)):
            await scene.read(ask(stream=True))

    run_virtual(story())


def test_after_its_time_an_answer_is_asked_for_again():
    async def story():
        scene = Scene(AnsweringUpstream(["old", "new"]), CacheOptions(exact=10, stale_while_revalidate=0))
        await scene.read(ask(stream=True))
        await idle(11)
        assert await scene.read(ask(stream=True)) == ("miss", "new")

    run_virtual(story())


@pytest.mark.parametrize("finish", ["length", "content_filter", "error", ""])
@pytest.mark.parametrize("stream", [False, True])
def test_what_was_cut_short_is_not_stored(stream, finish):
    async def story():
        scene = Scene(AnsweringUpstream(["half"], finish=finish))
        await scene.read(ask(stream=stream))
        assert (await scene.read(ask(stream=stream)))[0] == "miss"

    run_virtual(story())


def test_a_stream_that_broke_or_was_left_is_not_stored():
    async def story():
        scene = Scene(AnsweringUpstream(["a b c"], breaks=(2, UpstreamUnavailable("cut"))))
        with pytest.raises(UpstreamUnavailable):
            await scene.read(ask(stream=True))
        scene.upstream.breaks = None
        async with scene.service(ask(stream=True)) as reply:
            await anext(aiter(reply.events))
        assert (await scene.read(ask(stream=True)))[0] == "miss"

    run_virtual(story())


def test_what_the_route_does_not_stand_by_is_not_stored():
    async def story():
        scene = Scene(AnsweringUpstream(), trusted=lambda _, reply: reply.upstream != "up")
        await scene.read(ask())
        assert (await scene.read(ask()))[0] == "miss"

    run_virtual(story())


def test_tenants_never_see_each_others_answers():
    async def story():
        scene = Scene(AnsweringUpstream(["for a", "for b"]))
        assert await scene.read(ask(tenant="a", stream=True)) == ("miss", "for a")
        assert await scene.read(ask(tenant="b", stream=True)) == ("miss", "for b")
        assert await scene.read(ask(tenant="a", stream=True)) == ("hit", "for a")

    run_virtual(story())


def test_unless_the_route_says_that_they_share():
    async def story():
        scene = Scene(AnsweringUpstream(["for all", "never"]), CacheOptions(shared=True))
        await scene.read(ask(tenant="a", stream=True))
        assert await scene.read(ask(tenant="b", stream=True)) == ("hit", "for all")

    run_virtual(story())


def test_a_paced_replay_takes_its_time():
    async def story():
        scene = Scene(AnsweringUpstream(["one two three"]), CacheOptions(pace=0.5))
        await scene.read(ask())
        start = asyncio.get_running_loop().time()
        seen = []
        async with scene.service(ask(stream=True)) as reply:
            seen += [(event.text, asyncio.get_running_loop().time() - start) async for event in reply.events]
        assert [text for text, _ in seen] == ["", "one", " two", " three", ""]
        assert [at for _, at in seen] == [0, 0.5, 1, 1.5, 2]

    run_virtual(story())


@pytest.mark.parametrize("wrong", [{"exact": 0}, {"stale_if_error": -1}, {"pace": -1}])
def test_options_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match="cache"):
        CacheOptions(**wrong)
