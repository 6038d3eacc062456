"""Tiers at a gateway whose upstream takes fewer calls than come."""

import asyncio
import json
import re
from collections import Counter
from dataclasses import dataclass, field

import httpx
import pytest

from tests.kit.chat import CHAT, chat, comments_of, error_of, messages_of, new_id
from tests.kit.processes import CLIENT_KEY, PATIENCE, eventually

SEATS = 4
LONGEST_PAUSE = 60
"""Seconds that the official SDKs sleep at most."""
TIERS = {
    "pro": {"share": "60%", "weight": 4},
    "plus": {"share": "30%", "weight": 2},
    "free": {"share": "10%", "weight": 1, "queue": {"max_wait": "1s"}},
}
KEYS = [
    {"name": tier, "key": f"tg-key-of-{tier}-0123456789", "tenant": f"{tier} tenant", "tier": tier}
    for tier in TIERS
]
SLOW = "ok:first=0.3,tokens=2"
HELD = "ok:held=0,tokens=2"
"""Each name has seats of its own, since the upstream might limit each model by itself."""


@pytest.fixture
def tiered(launch, upstream):
    provider = {"preset": "vllm", "base_url": f"{upstream.url}/v1", "max_concurrency": SEATS}
    with launch(providers={"up": provider}, tiers=TIERS, keys=KEYS) as gateway:
        yield gateway


@dataclass
class Client:
    """What the clients of one tier got."""

    tier: str
    queued: list[float] = field(default_factory=list)
    refusals: list[httpx.Response] = field(default_factory=list)

    @property
    def headers(self):
        return {"authorization": f"Bearer tg-key-of-{self.tier}-0123456789"}

    async def ask(self, http, model=SLOW, **body):
        response = await http.post(CHAT, json=chat(model, **body), headers=self.headers)
        if response.status_code != 200:
            self.refusals.append(response)
        elif not comments_of(response.text):  # the headers were sent before it was known
            self.queued.append(float(response.headers["x-tidegate-queue-ms"]) / 1000)
        return response

    async def send(self, http, every, seconds):
        """Ask at a steady rate, whatever becomes of it."""
        async with asyncio.TaskGroup() as group:
            for _ in range(round(seconds / every)):
                group.create_task(self.ask(http))
                await asyncio.sleep(every)


def client_of(gateway):
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=gateway.url, timeout=PATIENCE, verify=False, limits=limits)


def series(gateway, name):
    """The values of a metric by its labels, as text."""
    text = httpx.get(f"{gateway.url}/metrics", timeout=PATIENCE, verify=False).text
    found = re.findall(rf"^{name}{{(.*?)}} (\S+)$", text, re.MULTILINE)
    return {labels: float(value) for labels, value in found}


def test_under_overload_the_lowest_tier_waits_and_is_told_when_to_come_back(tiered):
    """About 13 calls a second are served: 4 + 4 + 32 come."""

    async def run():
        clients = {tier: Client(tier) for tier in TIERS}
        async with client_of(tiered) as http, asyncio.TaskGroup() as group:
            for tier, every in (("pro", 0.25), ("plus", 0.25), ("free", 0.03)):
                group.create_task(clients[tier].send(http, every, 6))
        return clients

    clients = asyncio.run(run())
    assert not clients["pro"].refusals
    assert not clients["plus"].refusals
    assert clients["free"].queued
    assert len(clients["free"].refusals) > len(clients["free"].queued) / 2
    for refusal in clients["free"].refusals:
        assert (refusal.status_code, refusal.json()["error"]["code"]) == (503, "overloaded")
        told = int(refusal.headers["retry-after-ms"]) / 1000
        assert refusal.headers["x-should-retry"] == ("true" if told <= LONGEST_PAUSE else "false")
        assert 1 <= told <= int(refusal.headers["retry-after"]) < told + 1
    assert len({refusal.headers["retry-after-ms"] for refusal in clients["free"].refusals}) > 10

    shed = series(tiered, "tidegate_admission_shed_total")
    assert sum(shed.values()) == len(clients["free"].refusals)
    assert all('tier="free"' in labels for labels in shed)
    waited = series(tiered, "tidegate_admission_wait_seconds_count")
    assert waited['tier="free"'] > 0
    eventually(lambda: not any(series(tiered, "tidegate_admission_running").values()))


async def occupy(upstream, client, http, model):
    """Take every seat of a model, until it is released."""
    began = len(upstream.seen_all())
    tasks = [asyncio.create_task(client.ask(http, model)) for _ in range(SEATS)]
    await asyncio.to_thread(eventually, lambda: len(upstream.seen_all()) == began + SEATS)
    return tasks


async def until_waiting(gateway, count, place="admission"):
    """Wait until so many wait for a seat, or for an upstream's permit."""

    def waiting():
        return sum(series(gateway, f"tidegate_{place}_waiting").values())

    await asyncio.to_thread(eventually, lambda: waiting() == count)


def test_a_stream_that_waits_hears_comments_and_a_refusal_in_it_is_an_error(tiered, upstream):
    model = f"{HELD},tag={new_id()}"

    async def run():
        async with client_of(tiered) as http:
            pro, free = Client("pro"), Client("free")
            occupied = await occupy(upstream, pro, http, model)
            patient = asyncio.create_task(pro.ask(http, model, stream=True))
            await until_waiting(tiered, 1)
            refused = await free.ask(http, model, stream=True)
            upstream.release(f"fake/{model}")
            await asyncio.gather(*occupied, patient)
            return patient.result(), refused

    patient, refused = asyncio.run(run())
    assert comments_of(patient.text)
    assert messages_of(patient.text)[-1] == "[DONE]"
    assert comments_of(refused.text)
    assert error_of(messages_of(refused.text)[-1])["code"] == "overloaded"


def test_new_tiers_reach_those_who_wait_already(tiered, upstream):
    """Of two tiers in waiting the one goes first that owns seats by the new configuration."""
    model = f"{HELD},tag={new_id()}"

    async def run():
        began = len(upstream.seen_all())

        async with client_of(tiered) as http:
            occupied = await occupy(upstream, Client("free"), http, model)
            waiting = [
                asyncio.create_task(Client(tier).ask(http, model, user=tier))
                for tier in ("plus", "pro")
                for _ in range(6)
            ]
            await until_waiting(tiered, 12)
            text = tiered.config.read_text(encoding="utf-8")
            text = text.replace("share: 60%", "share: 0%").replace("share: 30%", "share: 90%")
            fresh = tiered.config.with_suffix(".new")
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(tiered.config)  # at once: half of a file is another configuration
            await asyncio.to_thread(reload, tiered)
            upstream.release(f"fake/{model}")
            await asyncio.gather(*occupied, *waiting)
        return [json.loads(visit["raw"])["user"] for visit in upstream.seen_all()[began + SEATS :]]

    def reload(gateway):
        with gateway.admin() as admin:
            assert admin.post("/admin/reload").status_code < 300
        gateway.line_with("configuration was read again")

    order = asyncio.run(run())
    assert Counter(order) == {"pro": 6, "plus": 6}
    assert Counter(order[:6])["plus"] > 3


def test_a_later_step_takes_what_the_first_cannot_before_anybody_waits(launch, upstream):
    providers = {
        name: {"preset": "vllm", "base_url": f"{upstream.url}/v1", "max_concurrency": seats}
        for name, seats in (("up", 1), ("spare", 2))
    }
    held = f"fake/{HELD},tag={new_id()}"
    models = {"busy": {"route": [f"up/{held}", f"spare/{held}"]}}
    body = {**chat(""), "model": "busy"}

    async def run(gateway):
        headers = {"authorization": f"Bearer {CLIENT_KEY}"}
        began = len(upstream.seen_all())
        async with client_of(gateway) as http:
            asked = [asyncio.create_task(http.post(CHAT, json=body, headers=headers)) for _ in range(4)]
            await until_waiting(gateway, 1, "upstream")
            await asyncio.to_thread(eventually, lambda: len(upstream.seen_all()) == began + 3)
            upstream.release(held)
            return await asyncio.gather(*asked)

    with launch(providers=providers, models=models) as gateway:
        answers = asyncio.run(run(gateway))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert Counter(answer.headers["x-tidegate-upstream"] for answer in answers)["spare"] >= 2
