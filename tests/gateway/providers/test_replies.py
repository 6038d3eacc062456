import asyncio
import json
from contextlib import suppress

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.providers.replies import open_stream, open_whole
from gateway.wire import sse
from policies.errors import StreamInterrupted, UpstreamBusy, UpstreamError, UpstreamUnavailable
from policies.service import Reply, Usage
from tests.kit import answers


class Body(httpx.AsyncByteStream):
    """The pieces of a body as they are read; an exception among them is raised."""

    def __init__(self, pieces):
        self._pieces = pieces

    async def __aiter__(self):
        for piece in self._pieces:
            if isinstance(piece, BaseException):
                raise piece
            yield piece


def answered(*pieces, kind="text/event-stream"):
    return httpx.Response(200, headers={"content-type": kind}, stream=Body(pieces))


def chunk(finish=None, index=0, **delta):
    body = answers.chunk("m", {"index": index, "delta": delta, "finish_reason": finish}, chat=True)
    return sse.message(json.dumps(body).encode())


ROLE = chunk(role="assistant", content="")
A, B = chunk(content="a"), chunk(content="b")
STOP = chunk(finish="stop")
USAGE = sse.message(json.dumps(answers.usage_chunk("m", 2, chat=True)).encode())
DONE = sse.DONE_MESSAGE


async def opened(*pieces, usage_wanted=False, kind="text/event-stream", choices=1):
    reply = Reply(upstream="up", model="m", stream=True)
    await open_stream(answered(*pieces, kind=kind), reply, usage_wanted=usage_wanted, choices=choices)
    return reply


async def text_of(reply):
    return "".join([event.text async for event in reply.events])


async def test_a_whole_stream():
    reply = await opened(ROLE, A, B, STOP, USAGE, DONE)
    assert not reply.complete
    events = [event async for event in reply.events]
    assert "".join(event.text for event in events) == "ab"
    assert [event.content for event in events] == [False, True, True, False, False]
    assert [event.bookkeeping for event in events] == [False] * 4 + [True]
    assert reply.usage == Usage(input=7, output=2)
    assert reply.complete


async def test_usage_that_the_client_asked_for_is_no_bookkeeping():
    reply = await opened(A, STOP, USAGE, DONE, usage_wanted=True)
    assert not [event async for event in reply.events if event.bookkeeping]


async def test_opening_waits_for_the_first_content_and_reads_no_further():
    body = Body([b": keep-alive\n\n\n\n", ROLE, A[:10], A[10:], AssertionError("read on")])
    reply = Reply(upstream="up", model="m", stream=True)
    await open_stream(httpx.Response(200, stream=body), reply, usage_wanted=False)
    assert reply.at_hand()


async def test_what_came_together_is_at_hand_together():
    reply = await opened(ROLE + A + B, STOP)
    await anext(reply.events)
    assert reply.at_hand()
    await anext(reply.events)
    await anext(reply.events)
    assert not reply.at_hand()


class WaitLog:
    """Keeps what each wait brought; None for one that didn't end."""

    limit = 30.0

    def __init__(self):
        self.waits = []
        self.now = lambda: 5.0

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if name == "since" and value == self.now():
            self.waits.append(None)
        elif name == "left" and value == self.limit and self.since is None:
            self.waits[-1] = True

    def cancelled(self):
        raise TimeoutError

    def nothing_came(self):
        self.waits[-1] = False


async def test_whoever_times_the_waits_hears_whether_they_brought_content():
    reply = await opened(A, b": keep-alive\n\n", ROLE, ROLE + B, B[:10], B[10:] + STOP, DONE)
    reply.events.watch = log = WaitLog()
    assert await text_of(reply) == "abb"
    assert log.waits == [False, False, True, False, True, False]


async def test_a_wait_that_was_cancelled_may_be_another_error():
    reply = await opened(A, asyncio.CancelledError())
    reply.events.watch = WaitLog()
    with pytest.raises(TimeoutError):
        await text_of(reply)


async def test_a_missing_done_is_no_fault_after_finish_reason():
    reply = await opened(A, STOP)
    assert await text_of(reply) == "a"
    assert reply.complete


async def test_nothing_counts_after_done():
    reply = await opened(A, STOP, DONE, B)
    assert await text_of(reply) == "a"


async def test_reasoning_and_tool_calls_are_content():
    assert (await opened(ROLE, chunk(reasoning_content="hm"))).at_hand()
    assert (await opened(ROLE, chunk(tool_calls=[{"index": 0}]))).at_hand()


async def test_every_choice_has_to_finish():
    two = [chunk(content="a"), chunk(index=1, content="b"), STOP]
    reply = await opened(*two, DONE)
    with pytest.raises(StreamInterrupted):
        await text_of(reply)
    reply = await opened(*two, chunk(index=1, finish="length"), DONE)
    await text_of(reply)
    assert reply.complete


async def test_a_choice_that_is_yet_to_begin_is_missed_when_the_connection_is_lost():
    reply = await opened(A, STOP, httpx.ReadError("reset"), choices=2)
    with pytest.raises(StreamInterrupted):
        await text_of(reply)
    assert not reply.complete


@pytest.mark.parametrize("end", [[DONE], []])
async def test_an_upstream_may_know_of_one_choice_only(end):
    reply = await opened(A, STOP, *end, choices=2)
    assert await text_of(reply) == "a"
    assert reply.complete


@pytest.mark.parametrize("garbage", [b"", b"ping", b"7", b"null", b"[]", b'"x"'])
async def test_what_never_was_a_chunk_is_skipped(garbage):
    reply = await opened(sse.message(garbage), ROLE, A, sse.message(garbage), B, STOP, DONE)
    assert await text_of(reply) == "ab"
    assert reply.complete


LATE = [sse.message(b"{"), sse.message(b'{"choices": 7}'), sse.message(b'{"error": "busy"}')]


@pytest.mark.parametrize("fault", [*LATE, httpx.ReadError("reset")])
async def test_a_fault_after_the_whole_answer_is_none(fault):
    reply = await opened(A, STOP, fault)
    assert await text_of(reply) == "a"
    assert reply.complete


async def test_usage_behind_a_malformed_chunk_counts():
    reply = await opened(A, STOP, sse.message(b"{"), USAGE, DONE)
    assert await text_of(reply) == "a"
    assert reply.usage == Usage(input=7, output=2)


@pytest.mark.parametrize("reason", ["insufficient_system_resource", "abort", "error"])
async def test_an_answer_that_the_upstream_gave_up_is_cut_and_not_finished(reason):
    reply = await opened(A, chunk(finish=reason), USAGE, DONE)
    with pytest.raises(StreamInterrupted):
        await text_of(reply)
    assert not reply.complete
    with pytest.raises(UpstreamError):
        await opened(chunk(finish=reason), DONE)
    given_up = answers.whole("m", [{"text": "a", "finish_reason": reason}], 3, chat=False)
    with pytest.raises(UpstreamError):
        await whole(json.dumps(given_up).encode())


BROKEN_BEFORE = [
    [],
    [b""],
    [b": keep-alive\n\n"],
    [ROLE],
    [ROLE, DONE],
    [b"<html>"],
    [sse.message(b"{")],
    [sse.message(b"[]")],
    [sse.message(b"7")],
    [sse.message(b'{"choices": 7}')],
    [sse.message(b'{"choices": [7]}')],
    [ROLE, httpx.ReadError("reset")],
    [ROLE, ConnectionResetError()],
]


@pytest.mark.parametrize("pieces", BROKEN_BEFORE)
async def test_a_stream_that_breaks_before_its_first_content_was_never_opened(pieces):
    with pytest.raises(UpstreamUnavailable):
        await opened(*pieces)


BROKEN_AFTER = [
    [],
    [DONE],
    [httpx.ReadError("reset")],
    [sse.message(b"{")],
    [sse.message(b'{"error": {"message": "busy", "code": 503}}')],
    [sse.message(b'{"error": "busy"}')],
    [B[:-9]],
]


@pytest.mark.parametrize("rest", BROKEN_AFTER)
async def test_a_stream_that_breaks_after_it_is_interrupted_and_its_text_is_kept(rest):
    reply = await opened(ROLE, A, B, *rest)
    text = ""
    with pytest.raises(StreamInterrupted):  # noqa: PT012 - what came before it counts
        async for event in reply.events:
            text += event.text
    assert text == "ab"
    assert not reply.complete


async def test_an_error_ahead_of_the_content_is_classed_by_its_code():
    with pytest.raises(UpstreamBusy):
        await opened(sse.message(b'{"error": {"message": "busy", "code": 503}}'))
    with pytest.raises(UpstreamBusy):
        await opened(b'{"error": {"message": "busy", "code": 503}}', kind="application/json")


@pytest.mark.parametrize("kind", ["application/json", "text/html; charset=utf-8"])
async def test_what_calls_itself_no_stream_is_none(kind):
    with pytest.raises(UpstreamUnavailable):
        await opened(b'{"choices": []}', kind=kind)


async def whole(*pieces):
    reply = Reply(upstream="up", model="m")
    await open_whole(answered(*pieces, kind="application/json"), reply)
    return reply


async def test_a_whole_body_behind_blank_lines():
    body = json.dumps(answers.whole("m", [{"text": "a"}], 3, chat=False)).encode()
    reply = await whole(b"\n", b"\r\n \n", body[:9], body[9:], b"\n")
    assert [event.data async for event in reply.events] == [body]
    assert reply.usage == Usage(input=7, output=3)
    assert reply.complete


@pytest.mark.parametrize(
    "pieces",
    [[], [b" \n\n"], [b"<html>"], [b"[]"], [b"{", httpx.ReadError("")], [b'{"error": "busy"}'], [b"{}"]],
)
async def test_a_body_that_is_no_answer(pieces):
    with pytest.raises(UpstreamUnavailable):
        await whole(*pieces)


FIELDS = [
    "choices",
    "delta",
    "content",
    "index",
    "finish_reason",
    "usage",
    "prompt_tokens",
    "completion_tokens",
]
FIELDS += ["prompt_tokens_details", "cached_tokens", "error", "text", "id", "tool_calls"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 9) | st.floats(-2, 2) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, min_size=1, max_size=4)
    ),
    max_leaves=16,
)
CHOICE = st.fixed_dictionaries({}, optional=dict.fromkeys(["index", "delta", "text", "finish_reason"], JSON))
CHUNK = st.fixed_dictionaries(
    {}, optional={"choices": st.lists(CHOICE, max_size=3) | JSON, "usage": JSON, "error": JSON, "id": JSON}
)


@given(st.lists(CHUNK | JSON, max_size=4))
async def test_whatever_json_an_upstream_streams_it_is_an_answer_or_its_fault(chunks):
    with suppress(UpstreamError):
        reply = await opened(*(sse.message(json.dumps(one).encode()) for one in chunks))
        async for event in reply.events:
            assert isinstance(event.text, str)
            assert_counts(event.usage)


@given(CHUNK | JSON)
async def test_whatever_json_an_upstream_answers_it_is_an_answer_or_its_fault(body):
    with suppress(UpstreamError):
        assert_counts((await whole(json.dumps(body).encode())).usage)


def assert_counts(usage):
    if usage is not None:
        for count in (usage.input, usage.output, usage.cached_input, usage.reasoning):
            assert isinstance(count, int)
            assert count >= 0
