"""Vectors from an upstream: what comes of its answers, and whose bill they are."""

import asyncio
import json
import logging
from contextlib import asynccontextmanager

import pytest

from gateway.cache.semantic.embedder import Wanted
from gateway.cache.semantic.models import UpstreamModel
from policies.errors import UpstreamUnavailable
from policies.facts import PromptEmbedded
from policies.service import CANCELLED, OK, Attempt, Event, Operation, Reply, Usage
from tests.kit.upstream import RecordingMeter, make_call
from tests.kit.virtual_time import LoopClock, run_virtual

ACME = make_call(id="req_1", tenant="acme", key="key_1", tier="pro", model="chat", route="chat")
OTHER = make_call(id="req_2", tenant="other", key="key_2", model="chat", route="chat")


def body(*vectors):
    return {"data": [{"index": at, "embedding": vector} for at, vector in enumerate(vectors)]}


class Upstream:
    """Answers ``said``, raises it, or waits so many seconds."""

    def __init__(self, said):
        self.said = said

    @asynccontextmanager
    async def __call__(self, call):
        call.attempts.append(Attempt("up", "embedder", CANCELLED))
        if isinstance(self.said, Exception):
            raise self.said
        if isinstance(self.said, float):
            await asyncio.sleep(self.said)
        call.attempts[-1].outcome = OK
        data = self.said if isinstance(self.said, bytes) else json.dumps(self.said).encode()
        usage = Usage(input=101, cost=1.0)
        yield Reply("up", "embedder", events=aiter_of(Event(data)), usage=usage, complete=True)


async def aiter_of(*events):
    for event in events:
        yield event


def embedded(upstream, *wanted):
    meter = RecordingMeter()
    model = UpstreamModel("embedder", LoopClock(), meter)
    model.service = upstream
    vectors = run_virtual(model(wanted))
    return vectors, meter.of(PromptEmbedded)


def test_vectors_have_length_one_and_the_texts_order():
    answer = body([3, 4], [0, 2])
    answer["data"].reverse()
    vectors, _ = embedded(Upstream(answer), Wanted("a", ACME), Wanted("b", OTHER))
    assert [list(vector) for vector in vectors] == [pytest.approx([0.6, 0.8]), [0, 1]]


def test_each_call_pays_for_its_texts_and_all_of_them_together_the_whole():
    wanted = [Wanted("x" * 10, ACME), Wanted("y" * 20, OTHER), Wanted("z" * 3, ACME)]
    _, parts = embedded(Upstream(body([1], [1], [1])), *wanted)
    assert [part.call.tenant for part in parts] == ["acme", "other", "acme"]
    assert [part.call.id for part in parts] == ["req_1", "req_2", "req_1"]
    assert {part.call.operation for part in parts} == {Operation.EMBEDDING}
    assert [part.reply.usage.input for part in parts] == [31, 61, 9]
    assert sum(part.reply.usage.cost for part in parts) == pytest.approx(1)
    assert {part.outcome for part in parts} == {OK}


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (UpstreamUnavailable("down"), "UpstreamUnavailable"),
        (60.0, CANCELLED),
        (b"not json", OK),
        ([], OK),
        ({"data": "text"}, OK),
        (body(), OK),
        (body([1.0], [1.0]), OK),
        (body([0.0, 0.0]), OK),
        (body([float("nan")]), OK),
        (body([[1.0]]), OK),
        (body("AACAPw=="), OK),
        ({"data": [{"embedding": [1.0]}]}, OK),
    ],
)
def test_whatever_an_upstream_does_is_no_error_and_is_told_once(said, outcome, caplog):
    meter = RecordingMeter()
    model = UpstreamModel("embedder", LoopClock(), meter)
    model.service = Upstream(said)
    with caplog.at_level(logging.INFO):
        assert run_virtual(model([Wanted("text", ACME)])) == [None]
        assert run_virtual(model([Wanted("text", ACME)])) == [None]
        assert [part.outcome for part in meter.of(PromptEmbedded)] == [outcome] * 2
        model.service = Upstream(body([1.0]))
        assert run_virtual(model([Wanted("text", ACME)]))[0] is not None
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_before_there_is_a_way_to_the_upstream_there_are_no_vectors():
    model = UpstreamModel("embedder", LoopClock(), RecordingMeter())
    assert run_virtual(model([Wanted("text", ACME)])) == [None]
