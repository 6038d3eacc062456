"""Upstreams whose ways change: busy for a while, limited, flapping; and what remains when a call is over."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.chaos.scene import GOOD, TOKENS
from tests.kit import answers
from tests.kit.chat import CHAT, PROMPT, new_id
from tests.kit.processes import eventually


def test_while_the_first_step_is_busy_the_second_answers_without_delay(scene):
    at = scene("pair").set("status:code=503", GOOD)
    calls = [at.ask(stream=False) for _ in range(30)]
    for got in calls:
        got.is_whole()
    assert sum(at.saw(got)[0] for got in calls) < 10, "hammered while it was busy"
    assert sorted(got.waited for got in calls)[-2] < 0.4, "waited although the next step was healthy"


def test_a_busy_while_alone_is_waited_out(scene):
    at = scene("alone").set("status:code=503")
    recovery = threading.Timer(1.5, at.set, [GOOD])
    recovery.start()
    try:
        with ThreadPoolExecutor(6) as pool:
            calls = list(pool.map(lambda _: at.ask(stream=False), range(6)))
    finally:
        recovery.join()
    for got in calls:
        if got.status != 200:
            got.failed(503, "upstream_busy")
    assert sum(len(at.bad_saw(got)) for got in calls) <= 2 * len(calls)
    eventually(lambda: at.ask(stream=False).status == 200)


@pytest.mark.parametrize("behaviour", ["slots:limit=3", "slots:limit=3,code=429"])
def test_a_limited_upstream_serves_more_clients_than_it_has_slots(scene, behaviour):
    at = scene("alone").set(f"{behaviour},tokens=10,gap=0.01")
    with ThreadPoolExecutor(12) as pool:
        calls = list(pool.map(lambda number: at.ask(stream=number % 2 == 0), range(36)))
    for got in calls:
        got.is_whole(answers.text(10))
    refused = sum(len(at.bad_saw(got)) - 1 for got in calls)
    assert refused <= 18, "half of the calls were refused once"


def test_a_hidden_limit_that_moves_is_followed(scene):
    at = scene("alone").set("hidden_limit:high=8,low=2,period=1.5,tokens=10,gap=0.01")
    with ThreadPoolExecutor(10) as pool:
        calls = list(pool.map(lambda _: at.ask(stream=False), range(90)))
    for got in calls:
        got.is_whole(answers.text(10))
    assert sum(len(at.bad_saw(got)) - 1 for got in calls) <= 30


@pytest.mark.parametrize("family", ["pair", "equals"])
def test_a_flapping_upstream_is_not_noticed(scene, family):
    at = scene(family).set(f"flapping:up=0.3,down=0.3,tokens={TOKENS}", GOOD)
    calls = [at.ask(stream=number % 2 == 0) for number in range(60)]
    for got in calls:
        got.is_whole()
    assert all(got.waited < 1 for got in calls)


LEAKY = [
    "ok:tokens=5",
    "status:code=500",
    "status:code=429,after=0.1",
    "status:code=400",
    "reset",
    "garbage",
    "silence",
    "blank",
    "html",
    "error_body",
    "cut:at=5",
    "cut:at=0",
    "stall:at=5",
    "malformed:at=5",
    "error_chunk:at=5",
]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])
@pytest.mark.parametrize("fault", LEAKY)
def test_whatever_happened_the_only_permit_is_free_again(scene, fault, stream):
    at = scene("single").set(fault)
    at.ask(stream=stream)
    at.set(GOOD)
    got = at.ask(stream=stream)
    got.is_whole()
    assert got.waited < 8


LEFT = ["silence", "ok:tokens=5000,gap=0.02", "stall:at=5", "ok:tokens=5,comments=30", "status:code=503"]


@pytest.mark.parametrize(
    "fault",
    LEFT,
)
def test_a_client_that_leaves_takes_its_permit_with_it(scene, gateway, bad, fault):
    at = scene("single").set(fault)
    identity, waiting = new_id(), new_id()
    with leaving(gateway, at.model, identity):
        eventually(lambda: bad.seen(identity))
        with leaving(gateway, at.model, waiting):  # finds no permit, and leaves the queue
            pass
    assert bad.ended(identity)["end"] in {"disconnected", "answered"}
    at.set(GOOD)
    at.ask().is_whole()
    assert not bad.seen(waiting) or fault.startswith("status")


class leaving:  # noqa: N801 - reads as a statement
    """A client that closes its connection on leaving, whatever it got until then."""

    def __init__(self, gateway, model, identity):
        self._client = gateway.client()
        messages = [{"role": "user", "content": PROMPT}]
        body = {"model": model, "messages": messages, "stream": True}
        self._request = self._client.build_request(
            "POST", CHAT, content=json.dumps(body), headers={"x-request-id": identity}
        )

    def __enter__(self):
        self._response = self._client.send(self._request, stream=True)  # the first ping at the latest
        return self

    def __exit__(self, *_):
        self._response.close()
        self._client.close()
