"""How a request is told of that did not come to its end, over a worker's real parts."""

import asyncio
import io
import json

import pytest

from gateway.access_log import AccessLog
from gateway.api.exchange import Exchange
from policies.service import Operation
from tests.gateway.test_serving import Bench
from tests.kit.processes import CLIENT_KEY

SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/v1/chat/completions",
    "headers": [(b"authorization", f"Bearer {CLIENT_KEY}".encode())],
}
BODY = json.dumps({"model": "plain", "messages": [{"role": "user", "content": "hi"}]}).encode()


class Edge:
    """One exchange; ``sent`` is what its client got."""

    def __init__(self, serving):
        self.log = io.BytesIO()
        serving.access_log = AccessLog(self.log, lambda _, flush: flush())
        self.sent = []
        self.exchange = Exchange(Operation.CHAT, serving, SCOPE, self.receive, self.send)
        self.bodies = [BODY]

    async def receive(self):
        if not self.bodies:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": self.bodies.pop(), "more_body": False}

    async def send(self, message):
        self.sent.append(message)

    @property
    def line(self):
        return json.loads(self.log.getvalue())


@pytest.fixture
async def serving(tmp_path):
    bench = Bench(tmp_path)
    serving = await bench.serving()
    yield serving
    await bench.close(serving)


async def test_a_request_that_is_ended_before_it_is_whole_is_not_told_to_be_well(serving):
    edge = Edge(serving)
    edge.bodies.clear()
    running = asyncio.create_task(edge.exchange.run())
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (edge.line["outcome"], edge.line["status"], edge.sent) == ("cancelled", 0, [])


async def test_a_defect_before_there_is_a_call_is_told_in_the_shape_of_an_error(serving, monkeypatch):
    def broken(_):
        raise LookupError("a secret of ours")

    monkeypatch.setattr(serving.catalogue, "find", broken)
    edge = Edge(serving)
    await edge.exchange.run()
    assert (edge.line["outcome"], edge.line["status"]) == ("InternalError", 500)
    error = json.loads(edge.sent[1]["body"])["error"]
    assert error["code"] == "internal_error"
    assert "secret" not in error["message"]
