import gc
import random

import httpx
import pytest

from gateway.parts import Parts
from gateway.providers.accounts import accounts_of
from gateway.queues import Queues
from gateway.settings import Provider, Tier
from gateway.settings.tiers import Queue
from gateway.upstreams import Upstreams
from tests.kit.upstream import RecordingMeter, make_call
from tests.kit.virtual_time import LoopClock

URL = "http://upstream.test/v1"


@pytest.fixture
async def parts():
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"data": []}))
    return Parts(LoopClock(), lambda: 0.0, random.Random(1), RecordingMeter(), transport)


@pytest.fixture
async def upstream_of(parts):
    upstreams = Upstreams(parts)

    def get(model, **facts):
        settings = Provider(preset="openai", base_url=URL, **facts)
        account = accounts_of({"up": settings}, {})["up"][0]
        return upstreams.get(settings, account, model, passed_on=False)

    return get


async def test_names_that_lead_to_the_same_upstreams_share_a_queue(parts, upstream_of):
    queues = Queues(parts)
    one = queues.before([upstream_of("a"), upstream_of("b")])
    assert queues.before([upstream_of("b"), upstream_of("a")]) is one
    assert queues.before([upstream_of("a")]) is not one


async def test_a_queue_outlives_a_reload_while_its_upstreams_do(parts, upstream_of):
    queues = Queues(parts)
    first = queues.before([upstream_of("a")])
    assert queues.before([upstream_of("a")]) is first
    assert queues.before([upstream_of("a", weight=3)]) is not first


async def test_a_queue_that_nothing_leads_to_is_forgotten(parts, upstream_of):
    queues = Queues(parts)
    kept = queues.before([upstream_of("a")])
    queues.before([upstream_of("b")])
    gc.collect()
    assert list(queues._known.values()) == [kept]


async def test_tiers_reach_the_queues_there_are_and_those_to_come(parts, upstream_of):
    queues = Queues(parts)
    now = queues.before([upstream_of("a")])
    queues.rule({"free": Tier(share="10%", weight=2, queue=Queue(max_wait="3s"))})
    later = queues.before([upstream_of("b")])
    for seating in (now, later):
        options = seating.queue.tiers["free"].options
        assert (options.share, options.weight, options.max_wait) == (0.1, 2, 3)


async def test_the_calls_of_all_queues_are_counted_by_tier(parts, upstream_of):
    queues = Queues(parts)
    seatings = [queues.before([upstream_of(model)]) for model in "ab"]
    queues.rule({"free": Tier()})
    tickets = [await seating.take(make_call(tier="free"), 1.0, 1.0) for seating in seatings]
    assert queues.counts() == ({"free": 2, "default": 0}, {"free": 0, "default": 0})
    for seating, ticket in zip(seatings, tickets, strict=True):
        seating.leave(ticket, None, answered=True)
    assert queues.counts()[0]["free"] == 0
