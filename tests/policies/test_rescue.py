import asyncio
import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.errors import (
    NoHealthyUpstream,
    StreamInterrupted,
    UpstreamContextTooLong,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from policies.facts import StreamRescued
from policies.rescue import Rescue, RescueOptions
from policies.service import Operation
from policies.splice import Transcript
from tests.kit.chunked import ChunkedUpstream, content_of, reasoning_event, tool_event
from tests.kit.upstream import RecordingMeter, ScriptedUpstream, Wait, make_call
from tests.kit.virtual_time import run_virtual

HELLO = ["Hello", ", ", "world", "!\n", " How", " are you?"]
BODY = {"messages": [{"role": "user", "content": "hi"}]}
BROKEN = StreamInterrupted("cut")


class InTurn:
    """Opens the next upstream each time, as failover does with a broken one in the history."""

    def __init__(self, *upstreams):
        self.upstreams = upstreams
        self.opened = 0

    def __call__(self, call):
        upstream = self.upstreams[min(self.opened, len(self.upstreams) - 1)]
        self.opened += 1
        return upstream(call)


def rescue(inner, continuing=None, **options):
    meter = RecordingMeter()
    return Rescue(inner, RescueOptions(**options), continuing=continuing, meter=meter), meter


async def read(service, call):
    """The text as the events tell it and as the chunks tell it, which must agree, and the reply."""
    async with service(call) as reply:
        events = [event async for event in reply.events]
    text = "".join(event.text for event in events)
    assert text == "".join(content_of(event.data) for event in events)
    return text, reply, events


def outcomes(meter):
    return [fact.outcome for fact in meter.of(StreamRescued)]


def test_a_good_stream_passes_untouched():
    upstream = ChunkedUpstream("a", HELLO)
    service, meter = rescue(upstream)
    text, reply, events = run_virtual(read(service, make_call()))
    assert text == "".join(HELLO)
    assert len(events) == len(HELLO) + 2
    assert reply.complete
    assert upstream.errors == [None]
    assert meter.facts == []


@pytest.mark.parametrize("cut", range(1, 6))
@pytest.mark.parametrize("fault", [BROKEN, UpstreamTimeout("stall"), UpstreamUnavailable("malformed"), None])
@pytest.mark.parametrize("continues", [True, False])
def test_a_broken_stream_is_carried_on_as_one(cut, fault, continues):
    first = ChunkedUpstream("a", HELLO, cut=cut, fault=fault)
    second = ChunkedUpstream("b", HELLO, prefills=continues)
    service, meter = rescue(InTurn(first, second), second if continues else None)
    text, reply, events = run_virtual(read(service, make_call()))
    assert text == "".join(HELLO)
    assert outcomes(meter) == ["continued" if continues else "restarted"]
    chunks = [json.loads(event.data) for event in events]
    assert {chunk["id"] for chunk in chunks} == {"a"}
    assert {chunk["model"] for chunk in chunks} == {"model-of-a"}
    assert [chunk["choices"][0]["delta"].get("role") for chunk in chunks].count("assistant") == 1
    assert (reply.upstream, reply.complete, first.active, second.active) == ("b", True, 0, 0)
    assert isinstance(first.errors[0], StreamInterrupted if fault is None else type(fault))
    assert second.errors == [None]


def test_a_target_that_ignores_the_prefill_is_not_believed():
    first = ChunkedUpstream("a", HELLO, cut=3, fault=BROKEN)
    service, meter = rescue(InTurn(first, ChunkedUpstream("c", HELLO)), ChunkedUpstream("b", HELLO))
    assert run_virtual(read(service, make_call()))[0] == "".join(HELLO)
    assert outcomes(meter) == ["diverged", "restarted"]


def test_a_continuation_that_sounds_like_the_beginning_is_passed_on_when_it_turns():
    pieces = ["ab", "cd", "a", "b", "ce", "f"]
    first = ChunkedUpstream("a", pieces, cut=2, fault=BROKEN)
    service, meter = rescue(first, ChunkedUpstream("b", pieces, prefills=True))
    assert run_virtual(read(service, make_call()))[0] == "abcdabcef"
    assert outcomes(meter) == ["continued"]


def test_usage_adds_up_after_a_continuation():
    first = ChunkedUpstream("a", HELLO, cut=3, fault=BROKEN)
    second = ChunkedUpstream("b", HELLO, prefills=True)
    service, _ = rescue(first, second)
    _, reply, events = run_virtual(read(service, make_call()))
    upstream = 10 + len("Hello, world")
    assert reply.usage.output == 3 + 3
    assert reply.usage.input == upstream - 3
    usage = json.loads(events[-1].data)["usage"]
    assert usage["prompt_tokens"] == reply.usage.input
    assert usage["completion_tokens"] == reply.usage.output
    assert usage["total_tokens"] == upstream + 3


def test_usage_after_a_restart_is_the_second_replys():
    service, _ = rescue(InTurn(ChunkedUpstream("a", HELLO, cut=3, fault=BROKEN), ChunkedUpstream("b", HELLO)))
    _, reply, _ = run_virtual(read(service, make_call()))
    assert (reply.usage.input, reply.usage.output) == (10, len(HELLO))


def test_the_prefill_is_the_last_message_and_its_length_comes_off_the_limit():
    second = ChunkedUpstream("b", HELLO, prefills=True)
    service, _ = rescue(ChunkedUpstream("a", HELLO, cut=2, fault=BROKEN), second)
    call = make_call(body={"messages": [{"role": "user", "content": "hi"}], "max_tokens": 50})
    run_virtual(read(service, call))
    body = second.calls[0].body
    assert body["messages"][-1] == {"role": "assistant", "content": "Hello,", "prefix": True}
    assert body["max_tokens"] == 48
    assert second.calls[0].attempts is call.attempts
    assert [attempt.outcome for attempt in call.attempts] == ["StreamInterrupted", "ok"]
    assert call.body["max_tokens"] == 50


def test_a_second_break_is_carried_on_too():
    first = ChunkedUpstream("a", HELLO, cut=2, fault=BROKEN)
    second = ChunkedUpstream("b", HELLO, cut=2, fault=BROKEN, prefills=True)
    third = ChunkedUpstream("c", HELLO, prefills=True)
    service, meter = rescue(first, InTurn(second, third))
    text, reply, _ = run_virtual(read(service, make_call()))
    assert text == "".join(HELLO)
    assert outcomes(meter) == ["continued", "continued"]
    assert reply.usage.output == len(HELLO)


def test_a_third_break_ends_the_stream():
    broken = ChunkedUpstream("a", HELLO, cut=3, fault=BROKEN)
    service, meter = rescue(broken)
    with pytest.raises(StreamInterrupted):
        run_virtual(read(service, make_call()))
    assert len(broken.calls) == 3
    assert outcomes(meter) == ["restarted", "restarted", "exhausted"]
    assert broken.active == 0


@pytest.mark.parametrize(("sampling", "times"), [({}, 1), ({"temperature": 0}, 2), ({"seed": 5}, 2)])
def test_another_text_is_dropped(sampling, times):
    first = ChunkedUpstream("a", HELLO, cut=3, fault=BROKEN)
    other = ChunkedUpstream("b", ["Hello", " there"])
    service, meter = rescue(InTurn(first, other))
    got = []

    async def run():
        async with service(make_call(body={**BODY, **sampling})) as reply:
            async for event in reply.events:
                got.append(event.text)  # noqa: PERF401 - what came before an error counts

    with pytest.raises(StreamInterrupted):
        run_virtual(run())
    assert "".join(got) == "Hello, world"
    assert outcomes(meter) == ["diverged"] * times + ["exhausted"]
    assert other.active == 0
    assert other.errors == [None] * times, "another text is no fault of the upstream"


def test_a_continuation_that_diverges_is_followed_by_a_restart():
    first = ChunkedUpstream("a", HELLO, cut=2, fault=BROKEN)
    service, meter = rescue(
        InTurn(first, ChunkedUpstream("c", HELLO)), ChunkedUpstream("b", ["x"], prefills=False)
    )
    text, _, _ = run_virtual(read(service, make_call()))
    assert text == "".join(HELLO)
    assert outcomes(meter) == ["diverged", "restarted"]


@pytest.mark.parametrize(
    "refusal",
    [UpstreamRejected("no prefill", status=400), NoHealthyUpstream("none"), UpstreamUnavailable("down")],
)
def test_a_continuation_that_cannot_be_opened_is_followed_by_a_restart(refusal):
    first = ChunkedUpstream("a", HELLO, cut=2, fault=BROKEN)
    service, meter = rescue(InTurn(first, ChunkedUpstream("c", HELLO)), ScriptedUpstream([[refusal]]))
    assert run_virtual(read(service, make_call()))[0] == "".join(HELLO)
    assert outcomes(meter) == ["restarted"]


def test_when_nobody_takes_over_the_break_is_told_and_not_the_refusal():
    first = ChunkedUpstream("a", HELLO, cut=2, fault=UpstreamTimeout("stall"))
    refusing = ScriptedUpstream([[UpstreamContextTooLong("too long", status=400)]])
    service, meter = rescue(InTurn(first, refusing))
    with pytest.raises(StreamInterrupted) as caught:
        run_virtual(read(service, make_call()))
    assert isinstance(caught.value.__cause__, UpstreamTimeout)
    assert outcomes(meter) == ["unreachable"]


class Late(ChunkedUpstream):
    """Breaks after the finish_reason."""

    async def _events(self, call, reply):
        async for event in super()._events(call, reply):
            yield event
        reply.complete = False
        raise BROKEN


def test_a_fault_after_the_finish_reason_is_none():
    text, reply, events = run_virtual(read(rescue(Late("a", HELLO))[0], make_call()))
    assert text == "".join(HELLO)
    assert events[-1].finish_reason == "stop"
    assert reply.complete


def test_one_finished_choice_does_not_make_an_answer_of_two_whole():
    service, meter = rescue(Late("a", HELLO))
    with pytest.raises(StreamInterrupted):
        run_virtual(read(service, make_call(body={**BODY, "n": 2})))
    assert outcomes(meter) == ["refused"]


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ({"n": 2}, "refused"),
        ({"logprobs": True}, "refused"),
        ({"response_format": {"type": "json_object"}}, "restarted"),
        ({"response_format": {"type": "text"}}, "continued"),
        ({"tools": [{"type": "function"}]}, "restarted"),
        ({"guided_json": {}}, "restarted"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
            "restarted",
        ),
        ({"temperature": 1, "n": 1, "logprobs": False}, "continued"),
    ],
)
def test_what_the_body_allows(body, outcome):
    first = ChunkedUpstream("a", HELLO, cut=3, fault=BROKEN)
    service, meter = rescue(
        InTurn(first, ChunkedUpstream("b", HELLO)), ChunkedUpstream("c", HELLO, prefills=True)
    )
    call = make_call(body={**BODY, **body})
    if outcome == "refused":
        with pytest.raises(StreamInterrupted):
            run_virtual(read(service, call))
    else:
        assert run_virtual(read(service, call))[0] == "".join(HELLO)
    assert outcomes(meter) == [outcome]


def test_a_half_delivered_tool_call_is_never_carried_on():
    first = ChunkedUpstream("a", HELLO, cut=2, fault=BROKEN, before=[tool_event("a")])
    service, meter = rescue(InTurn(first, ChunkedUpstream("b", HELLO)))
    with pytest.raises(StreamInterrupted):
        run_virtual(read(service, make_call(body={**BODY, "tools": [{}]})))
    assert outcomes(meter) == ["refused"]


def test_a_restart_that_calls_a_tool_instead_of_the_text_has_diverged():
    first = ChunkedUpstream("a", HELLO, cut=2, fault=BROKEN)
    service, meter = rescue(InTurn(first, ChunkedUpstream("b", HELLO, before=[tool_event("b")])), attempts=1)
    with pytest.raises(StreamInterrupted):
        run_virtual(read(service, make_call(body={**BODY, "tools": [{}]})))
    assert outcomes(meter) == ["diverged", "exhausted"]


@pytest.mark.parametrize("continues", [True, False])
def test_reasoning_that_is_over_is_not_repeated(continues):
    def thinking(name, **more):
        return ChunkedUpstream(name, HELLO, before=[reasoning_event(name, "hm")], **more)

    first = thinking("a", cut=2, fault=BROKEN)
    service, meter = rescue(InTurn(first, thinking("b")), thinking("c", prefills=True) if continues else None)
    text, _, events = run_virtual(read(service, make_call()))
    assert text == "".join(HELLO)
    assert sum(b"reasoning_content" in event.data for event in events) == 1
    assert len(meter.facts) == 1


def test_reasoning_without_text_is_not_carried_on():
    first = ChunkedUpstream("a", HELLO, cut=0, fault=BROKEN, before=[reasoning_event("a", "hm")])
    service, meter = rescue(InTurn(first, ChunkedUpstream("b", HELLO)))
    with pytest.raises(StreamInterrupted):
        run_virtual(read(service, make_call()))
    assert outcomes(meter) == ["refused"]


def test_a_stream_that_broke_before_any_content_is_made_again():
    first = ChunkedUpstream("a", HELLO, cut=0, fault=BROKEN)
    service, meter = rescue(InTurn(first, ChunkedUpstream("b", HELLO)))
    assert run_virtual(read(service, make_call()))[0] == "".join(HELLO)
    assert outcomes(meter) == ["restarted"]


def test_completions_go_on_from_a_longer_prompt():
    call = make_call(operation=Operation.COMPLETION, body={"prompt": "hi"})

    class Texts(ChunkedUpstream):
        async def _events(self, call, reply):
            async for event in super()._events(call, reply):
                data = json.loads(event.data)
                (choice,) = data["choices"]
                choice["text"] = choice.pop("delta").get("content", "")
                event.data = json.dumps(data).encode()
                yield event

    second = Texts("b", HELLO, prefills=True)
    service, _ = rescue(Texts("a", HELLO, cut=3, fault=BROKEN), second)
    assert run_virtual(read(service, call))[0] == "".join(HELLO)
    assert second.calls[0].body["prompt"] == "hiHello, world"


def test_turned_off_it_tells_the_break():
    first = ChunkedUpstream("a", HELLO, cut=3, fault=None)
    service, meter = rescue(first, on_stream_break="error")
    with pytest.raises(StreamInterrupted):
        run_virtual(read(service, make_call()))
    assert len(first.calls) == 1
    assert outcomes(meter) == ["exhausted"]


def test_chunks_that_cannot_be_read_are_not_carried_on():
    service, meter = rescue(ScriptedUpstream([["a", BROKEN]]))
    with pytest.raises(StreamInterrupted):
        run_virtual(read_text_of(service))
    assert outcomes(meter) == ["unreachable"]


async def read_text_of(service):
    async with service(make_call()) as reply:
        return [event.text async for event in reply.events]


def test_leaving_early_closes_whatever_is_open():
    first = ChunkedUpstream("a", HELLO, cut=2, fault=BROKEN)
    second = ChunkedUpstream("b", HELLO)

    async def leave():
        async with rescue(InTurn(first, second))[0](make_call()) as reply:
            async for event in reply.events:
                if event.text == "world":
                    break
            assert second.active == 1
        assert (first.active, second.active) == (0, 0)

    run_virtual(leave())


@pytest.mark.parametrize("after", [0.05, 0.115, 0.2])
def test_cancellation_passes_on_and_closes_whatever_is_open(after):
    first = ChunkedUpstream("a", HELLO, cut=2, fault=BROKEN)
    second = ChunkedUpstream("b", HELLO)

    async def cancel():
        task = asyncio.create_task(read(rescue(InTurn(first, second))[0], make_call()))
        await asyncio.sleep(after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (first.active, second.active) == (0, 0)
        assert isinstance((first.errors + second.errors)[-1], asyncio.CancelledError)

    run_virtual(cancel())


def test_an_error_before_the_first_event_is_not_its_business():
    upstream = ScriptedUpstream([[Wait(1), UpstreamUnavailable("down")]])
    service, meter = rescue(upstream)
    with pytest.raises(UpstreamUnavailable):
        run_virtual(read(service, make_call()))
    assert meter.facts == []


def test_options_are_checked():
    with pytest.raises(ValueError, match="rescue or error"):
        RescueOptions(on_stream_break="ignore")
    with pytest.raises(ValueError, match="1 or more"):
        RescueOptions(attempts=0)


# The worst bug here would be a token twice or not at all.

LETTERS = st.text(alphabet="ab \né😀", min_size=1, max_size=30)


def pieces_of(text, cuts):
    edges = sorted({cut % (len(text) + 1) for cut in cuts} | {0, len(text)})
    return [text[a:b] for a, b in pairwise(edges)]


PIECES = st.builds(pieces_of, LETTERS, st.lists(st.integers(0, 30), max_size=8))


@settings(max_examples=400)
@given(
    text=LETTERS,
    chunkings=st.lists(st.lists(st.integers(0, 30), max_size=8), min_size=4, max_size=4),
    cuts=st.lists(st.none() | st.integers(0, 8), min_size=4, max_size=4),
    faults=st.lists(st.sampled_from([BROKEN, None]), min_size=4, max_size=4),
    mode=st.sampled_from(["restart", "continue", "prefill ignored"]),
)
def test_faithful_upstreams_give_the_whole_text_or_an_error(text, chunkings, cuts, faults, mode):
    prefills = mode == "continue"
    upstreams = [
        ChunkedUpstream(
            str(k), pieces_of(text, chunkings[k]), cut=cuts[k], fault=faults[k], prefills=prefills
        )
        for k in range(4)
    ]
    inner = InTurn(*upstreams)
    service, _ = rescue(inner, None if mode == "restart" else inner)
    got = []

    async def run():
        async with service(make_call()) as reply:
            async for event in reply.events:
                got.append(event.text)
                assert content_of(event.data) == event.text

    try:
        run_virtual(run())
    except StreamInterrupted:
        assert text.startswith("".join(got))
        assert inner.opened == 3
    else:
        assert "".join(got) == text
    assert all(upstream.active == 0 for upstream in upstreams)


@settings(max_examples=400)
@given(first=PIECES, second=PIECES, third=PIECES, cut=st.integers(0, 8), zero=st.booleans())
def test_a_restart_gives_one_of_the_upstreams_texts_or_an_error(first, second, third, cut, zero):
    upstreams = [
        ChunkedUpstream("a", first, cut=cut, fault=BROKEN),
        ChunkedUpstream("b", second),
        ChunkedUpstream("c", third),
    ]
    got = []

    async def run():
        call = make_call(body={**BODY, "temperature": 0 if zero else 1})
        async with rescue(InTurn(*upstreams))[0](call) as reply:
            async for event in reply.events:
                got.append(event.text)  # noqa: PERF401 - what came before an error counts

    delivered = "".join(first[:cut])
    try:
        run_virtual(run())
    except StreamInterrupted:
        assert "".join(got) == delivered
        assert not "".join(second).startswith(delivered)
        assert not zero or not "".join(third).startswith(delivered)
    else:
        whole = ["".join(pieces) for pieces in (first, second, third)]
        assert "".join(got) in (whole if cut > len(first) else whole[1:])


def test_the_transcript_counts_what_the_upstream_counted():
    transcript = Transcript(make_call())
    assert transcript.resumable
    assert transcript.tokens == (0, 0)
