"""The layer: what it takes, what it settles in every way that a call can end, and the laws of a layer."""

import asyncio

import pytest

from policies.errors import (
    InvalidRequest,
    LimitTooSmall,
    NoHealthyUpstream,
    Overloaded,
    QuotaExhausted,
    RateLimited,
    StreamInterrupted,
    UpstreamRejected,
)
from policies.facts import LimitReached, ReservationSettled
from policies.limits import Allotment, Claim, HeldSlots, RateLimit
from policies.memory import MemoryStore
from policies.ratelimit import Bucket, Dimension, Limit, Verdict, Window
from policies.service import CANCELLED, Attempt, Usage
from tests.kit.upstream import RecordingMeter, ScriptedUpstream, Wait, make_call, read_text
from tests.kit.virtual_time import LoopClock, run_virtual

LIMITS = {
    "requests": Limit(Dimension.REQUESTS, 10, Window.MINUTE),
    "input": Limit(Dimension.INPUT, 1000, Window.DAY),
    "output": Limit(Dimension.OUTPUT, 1000, Window.DAY),
    "tokens": Limit(Dimension.TOKENS, 1000, Window.DAY),
    "spend": Limit(Dimension.SPEND, 1000, Window.DAY),
    "slots": Limit(Dimension.CONCURRENCY, 2),
}
ESTIMATE = Usage(input=10, output=100)


class Bench:
    def __init__(self, *script, limits=None, upstream=None, estimate=ESTIMATE):
        self.upstream = upstream or ScriptedUpstream([list(script)])
        self.meter = RecordingMeter()
        self.store = MemoryStore(LoopClock().now)
        self.slots = HeldSlots(self.store, owner="w", clock=LoopClock())
        self.buckets = {name: Bucket(name, limit) for name, limit in (limits or LIMITS).items()}
        claim = Claim(Allotment(list(self.buckets.values())), estimate, input_price=1, output_price=2)
        self.service = RateLimit(
            self.upstream, resolve=lambda _: claim, store=self.store, slots=self.slots, meter=self.meter
        )

    def held(self):
        """What each of the buckets holds now; requests as if none had drained."""
        now = LoopClock().now()
        found = {name: self.store.amount(bucket, now) for name, bucket in self.buckets.items()}
        assert len(self.slots) == found.get("slots", len(self.slots))
        return tuple(round(amount, 6) for name, amount in found.items() if name != "requests")


def test_usage_replaces_the_estimate():
    bench = Bench(Wait(1), "a", Wait(1), "b")

    async def check():
        async with bench.service(make_call(id="one")) as reply:
            assert bench.held() == (10, 100, 110, 210, 1)
            async for _ in reply.events:
                pass
        assert bench.held() == (3, 2, 5, 7, 0)

    run_virtual(check())
    (settled,) = bench.meter.of(ReservationSettled)
    assert (settled.reserved, settled.used) == (ESTIMATE, Usage(input=3, output=2))


@pytest.mark.parametrize(
    ("error", "counts"),
    [(NoHealthyUpstream("all out"), 0), (UpstreamRejected("no", status=400), 1), (InvalidRequest("no"), 1)],
)
def test_a_call_that_nobody_answered_costs_no_tokens_and_counts_if_it_was_at_fault(error, counts):
    bench = Bench(error)

    async def check():
        with pytest.raises(type(error)):
            await read_text(bench.service, make_call())
        assert bench.held() == (0, 0, 0, 0, 0)
        assert bench.store.amount(bench.buckets["requests"], 0) == counts

    run_virtual(check())


def test_a_stream_that_is_left_costs_what_was_delivered():
    bench = Bench("a" * 10, "b" * 10, Wait(60), "c")

    async def check():
        call = make_call()
        async with bench.service(call) as reply:
            for _ in range(2):
                call.delivered += len((await anext(reply.events)).text)
        assert bench.held() == (10, 5, 15, 20, 0)

    run_virtual(check())


def test_a_stream_that_breaks_costs_what_was_delivered():
    bench = Bench("a" * 10, StreamInterrupted("cut"))

    async def check():
        with pytest.raises(StreamInterrupted):
            await read_text(bench.service, make_call())
        assert bench.held() == (10, 3, 13, 16, 0)

    run_virtual(check())


SENT = [Attempt("up", "m", CANCELLED)]


@pytest.mark.parametrize(
    ("after", "attempts", "held"),
    [(0.5, [], (0, 0, 0, 0, 0)), (0.5, SENT, (10, 0, 10, 10, 0)), (1.5, SENT, (10, 1, 11, 12, 0))],
)
def test_cancelled_before_the_first_content_what_was_sent_costs_the_prompt(after, attempts, held):
    bench = Bench(Wait(1), "abcd", Wait(60), "b")

    async def check():
        task = asyncio.create_task(read_text(bench.service, make_call(attempts=attempts)))
        await asyncio.sleep(after)
        task.cancel("gone")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert bench.held() == held
        assert bench.upstream.active == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(check())


def test_a_whole_answer_without_usage_costs_the_estimate():
    bench = Bench("answer")
    bench.upstream.usage = None

    async def check():
        async with bench.service(make_call(stream=False)) as reply:
            async for _ in reply.events:
                pass
        assert bench.held() == (10, 100, 110, 210, 0)

    run_virtual(check())


def refused(limit, calls=1, estimate=ESTIMATE):
    """The error of a call after ``calls`` others, still under way."""
    bench = Bench("a", Wait(600), limits={"b": limit}, estimate=estimate)

    async def check():
        for number in range(calls):
            asyncio.create_task(read_text(bench.service, make_call(id=f"r{number}")))  # noqa: RUF006
        await asyncio.sleep(1)
        call = make_call(id="late")
        with pytest.raises((RateLimited, QuotaExhausted)) as caught:
            await read_text(bench.service, call)
        assert caught.value.allowances == tuple(call.allowances)
        assert len(bench.upstream.opened) == calls
        return caught.value

    error = run_virtual(check())
    (reached,) = bench.meter.of(LimitReached)
    assert reached.dimension == limit.dimension
    return error


def test_the_wait_is_exact_and_the_message_says_what_to_do():
    error = refused(LIMITS["requests"], calls=10)
    assert type(error) is RateLimited
    assert error.retry_after == pytest.approx(5)
    assert error.message == "The limit of 10 requests a minute is reached; try again in 5 s."
    assert error.allowances[0].remaining == pytest.approx(1 / 6)


def test_a_quota_begins_again_at_midnight():
    error = refused(Limit(Dimension.REQUESTS, 2, Window.DAY), calls=2)
    assert type(error) is QuotaExhausted
    assert error.retry_after == 86400 - 1
    assert not error.retryable


def test_a_call_larger_than_the_limit_is_told_so():
    error = refused(Limit(Dimension.TOKENS, 100, Window.MINUTE), calls=0)
    assert type(error) is LimitTooSmall
    assert error.retry_after is None
    assert "110 tokens" in error.message


def test_concurrency_is_what_runs_at_a_time():
    error = refused(LIMITS["slots"], calls=2)
    assert error.retry_after == 1
    assert "2 of your concurrent requests" in error.message


def test_a_limit_that_can_not_be_counted_is_the_gateways_fault():
    bench = Bench("a")

    async def outage(_holder, charges):
        return Verdict(False, 0, charges, [0.0] * len(charges), outage=2.0)

    bench.store.take = outage
    with pytest.raises(Overloaded) as caught:
        run_virtual(read_text(bench.service, make_call()))
    assert caught.value.retry_after == 2


def test_without_limits_a_call_passes_through():
    upstream = ScriptedUpstream([["a", "b"]])
    store = MemoryStore(LoopClock().now)
    for claim in (None, Claim(Allotment([]), ESTIMATE)):
        service = RateLimit(
            upstream,
            resolve=lambda _, claim=claim: claim,
            store=store,
            slots=HeldSlots(store, owner="w", clock=LoopClock()),
            meter=RecordingMeter(),
        )
        assert run_virtual(read_text(service, make_call())) == "ab"


def test_long_answers_keep_their_slots_and_those_of_the_dead_come_free():
    bench = Bench("a", Wait(300), "b", limits={"slots": Limit(Dimension.CONCURRENCY, 1, ttl=60)})

    async def check():
        keeper = asyncio.create_task(bench.slots.keep(every=20))
        reading = asyncio.create_task(read_text(bench.service, make_call(id="long")))
        for _ in range(29):
            await asyncio.sleep(10)
            with pytest.raises(RateLimited):
                await read_text(bench.service, make_call(id="other"))
        keeper.cancel()  # as if the process had died
        await asyncio.gather(keeper, return_exceptions=True)
        bench.slots._held.clear()
        await asyncio.sleep(61)
        assert bench.store.amount(bench.buckets["slots"], LoopClock().now()) == 0
        assert await reading == "ab"

    run_virtual(check())


def test_spend_is_settled_by_the_price_of_who_answered():
    bench = Bench("a", limits={"spend": LIMITS["spend"]})
    allotment = Allotment(list(bench.buckets.values()))
    claim = Claim(
        allotment, ESTIMATE, 1, 2, spent=lambda reply, usage: {"up": 0.25}[reply.upstream] * usage.output
    )
    service = RateLimit(
        bench.upstream, resolve=lambda _: claim, store=bench.store, slots=bench.slots, meter=bench.meter
    )

    async def check():
        async with service(make_call()) as reply:
            assert bench.held() == (210,)
            async for _ in reply.events:
                pass
        assert bench.held() == (0.5,)

    run_virtual(check())


def test_what_depends_on_no_tokens_tells_nothing_of_estimates():
    bench = Bench("a", limits={"requests": LIMITS["requests"], "slots": LIMITS["slots"]})
    assert run_virtual(read_text(bench.service, make_call())) == "a"
    assert bench.meter.of(ReservationSettled) == []


def test_a_slot_that_was_given_back_while_it_was_renewed_is_free():
    bench = Bench("a", Wait(1), "b", limits={"slots": LIMITS["slots"]})
    plain = bench.store.renew

    async def slow(holder, buckets):
        await asyncio.sleep(5)  # on its way, the call ends
        await plain(holder, buckets)

    bench.store.renew = slow

    async def check():
        reading = asyncio.create_task(read_text(bench.service, make_call()))
        await asyncio.sleep(0.5)
        await bench.slots.renew()
        assert await reading == "ab"
        assert bench.held() == (0,)

    run_virtual(check())


def test_two_hundred_clients_that_leave_at_random_never_hold_more_than_eight():
    from random import Random  # noqa: PLC0415

    rng = Random(11)
    bench = Bench(Wait(0.3), "a", Wait(1), "b", Wait(1), limits={"slots": Limit(Dimension.CONCURRENCY, 8)})

    async def client(number):
        for turn in range(10):
            await asyncio.sleep(rng.random())
            try:
                async with asyncio.timeout(rng.random() * 3):
                    await read_text(bench.service, make_call(id=f"{number}.{turn}"))
            except (TimeoutError, RateLimited):
                pass

    async def check():
        await asyncio.gather(*(client(number) for number in range(200)))
        assert bench.upstream.most_active == 8
        assert bench.held() == (0,)

    run_virtual(check())


def test_a_client_that_sends_one_request_id_for_all_its_calls_gains_nothing():
    bench = Bench("a", Wait(60), limits={"slots": Limit(Dimension.CONCURRENCY, 2)})

    async def check():
        calls = [read_text(bench.service, make_call(id="same")) for _ in range(10)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(outcome == "a" for outcome in outcomes) == 2

    run_virtual(check())
