"""Limits as clients meet them, through real processes: what is let in, what they are told, what it costs."""

import asyncio
import json
import time
from contextlib import ExitStack, suppress
from random import Random
from urllib.parse import urlsplit

import pytest
from openai import OpenAI, RateLimitError

from tests.kit import processes
from tests.kit.chat import CHAT, chat, new_id
from tests.kit.metrics import total
from tests.kit.processes import CLIENT_KEY, PATIENCE, UPSTREAM_KEY
from tests.kit.zones import noon

OTHER_KEY = "tg-test-other-key-0123456789"


def tiers(**limits):
    return {"tiers": {"free": {"limits": limits, "zone": noon()}}, "keys": [key("client", CLIENT_KEY)]}


def key(name, secret, tenant="acme", **more):
    return {"name": name, "key": secret, "tenant": tenant, "tier": "free", **more}


def provider(upstream, **more):
    base_url = f"{upstream.url}/v1"
    return {"providers": {"up": {"preset": "vllm", "base_url": base_url, "api_key": UPSTREAM_KEY, **more}}}


def ask(client, model="ok", **body):
    return client.post(CHAT, json=chat(model, **body), headers={"x-request-id": new_id()})


def headers_of(response, kind):
    names = [f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining")]
    return tuple(response.headers.get(name) for name in names)


def refusal(response):
    assert response.status_code == 429, response.text
    return response.json()["error"]


def test_requests_a_minute(launch):
    with launch(**tiers(requests="3/minute")) as gateway, gateway.client() as client:
        began = time.monotonic()
        answers = [ask(client) for _ in range(4)]
        took = time.monotonic() - began
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [headers_of(answer, "requests") for answer in answers] == [
        ("3", "2"),
        ("3", "1"),
        ("3", "0"),
        ("3", "0"),
    ]
    assert answers[0].headers["x-ratelimit-reset-requests"] == "20s"
    told = answers[3].headers
    assert refusal(answers[3])["code"] == "rate_limit_exceeded"
    assert told["x-should-retry"] == "true"
    assert 20_000 - 1000 * took <= int(told["retry-after-ms"]) <= 20_000
    assert int(told["retry-after"]) == -(-int(told["retry-after-ms"]) // 1000)
    assert "x-ratelimit-limit-tokens" not in told


@pytest.mark.parametrize("workers", [1, 2])
def test_a_quota_of_a_day_outlives_the_gateway(launch, workers):
    sections = {"server": {"workers": workers}, **tiers(requests=["10/minute", "3/day"])}
    with launch(**sections) as gateway, gateway.client() as client:
        answers = [ask(client) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert headers_of(answers[3], "requests") == ("3", "0")
        assert refusal(answers[3])["code"] == "insufficient_quota"
        assert answers[3].headers["x-should-retry"] == "false"
        assert 0 < int(answers[3].headers["retry-after"]) <= 86400
    with launch(**sections) as gateway, gateway.client() as client:
        assert refusal(ask(client))["code"] == "insufficient_quota"


def test_tokens_are_reserved_and_what_was_not_used_comes_back(launch):
    with launch(**tiers(tokens="2000/hour")) as gateway, gateway.client() as client:
        for used in (19, 38, 57):
            answer = ask(client, max_tokens=1500)
            assert answer.status_code == 200, used
            limit, remaining = headers_of(answer, "tokens")
            assert (limit, int(remaining) < 500) == ("2000", True)
        with client.stream("POST", CHAT, json=chat("ok", stream=True)) as streamed:
            # Nobody said how long the answer may get, so a quarter of the limit is reserved.
            assert 1400 < int(headers_of(streamed, "tokens")[1]) < 1450
            streamed.read()
        large = ask(client, max_tokens=2500)
        assert "shorten it or max_tokens" in refusal(large)["message"]
        assert large.headers["x-should-retry"] == "false"
        assert "retry-after" not in large.headers
        assert ask(client, max_tokens=1500).status_code == 200


def test_spend_counts_what_answers_cost(launch, upstream):
    # An answer costs 7 * $10 + 12 * $20 a million, $0.00031; reserved are 100 tokens of output, $0.002.
    prices = {"fake/ok": {"input": 10, "output": 20}}
    sections = {**provider(upstream, prices=prices), **tiers(spend="0.0029/month")}
    with launch(**sections) as gateway, gateway.client() as client:
        answers = [ask(client, max_tokens=100) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert refusal(answers[3])["code"] == "insufficient_quota"
    assert "0.0029 spend a month" in refusal(answers[3])["message"]


def test_calls_at_a_time(launch):
    with launch(**tiers(concurrency=2)) as gateway, gateway.client() as client, ExitStack() as running:
        slow = chat("ok:gap=0.05,tokens=400", stream=True)
        streams = [running.enter_context(client.stream("POST", CHAT, json=slow)) for _ in range(2)]
        assert [stream.status_code for stream in streams] == [200, 200]
        refused = ask(client)
        assert "All 2 of your concurrent requests are under way" in refusal(refused)["message"]
        assert refused.headers["retry-after"] == "1"
        streams[0].close()
        processes.eventually(lambda: ask(client).status_code == 200)


def test_limits_of_a_key_its_tenant_and_its_tier_hold_together(launch):
    sections = {
        "tiers": {"free": {"limits": {"requests": "6/hour"}}},
        "tenants": {"acme": {"limits": {"requests": "4/minute"}}},
        "keys": [key("own", CLIENT_KEY, limits={"requests": "2/minute"}), key("free", OTHER_KEY)],
    }
    sections["keys"].append(key("stranger", OTHER_KEY + "x", tenant="other"))
    with launch(**sections) as gateway, ExitStack() as clients:
        secrets = (CLIENT_KEY, OTHER_KEY, OTHER_KEY + "x")
        own, free, stranger = (clients.enter_context(gateway.client(secret)) for secret in secrets)
        assert [ask(own).status_code for _ in range(3)] == [200, 200, 429]
        assert [headers_of(ask(free), "requests") for _ in range(3)] == [("4", "1"), ("4", "0"), ("4", "0")]
        assert [ask(stranger).status_code for _ in range(7)] == [200] * 6 + [429]
        metrics = own.get("/metrics").text
    refused = {
        scope: f'tidegate_limit_refusals_total{{dimension="requests",scope="{scope}"}} 1.0' in metrics
        for scope in ("key", "tenant", "tier")
    }
    assert refused == {"key": True, "tenant": True, "tier": True}


def test_the_openai_sdk_comes_back_when_it_is_told_and_is_let_in(launch):
    with launch(**tiers(requests={"amount": "1/second", "burst": 2})) as gateway:
        with OpenAI(base_url=f"{gateway.url}/v1", api_key=CLIENT_KEY, max_retries=1, timeout=PATIENCE) as sdk:
            for _ in range(5):
                sdk.chat.completions.create(model="fake/ok", messages=[{"role": "user", "content": "hi"}])
        processes.eventually(lambda: statuses(gateway).count(200) == 5)
        # Each that was refused was let in at its next try, or the SDK would have raised.
        assert 0 < statuses(gateway).count(429) <= 3


def statuses(gateway):
    return [line["status"] for line in gateway.access_log()]


def test_the_openai_sdk_does_not_try_again_before_tomorrow(launch):
    with launch(**tiers(requests="1/day")) as gateway:
        with OpenAI(base_url=f"{gateway.url}/v1", api_key=CLIENT_KEY, max_retries=5, timeout=PATIENCE) as sdk:
            question = {"model": "fake/ok", "messages": [{"role": "user", "content": "hi"}]}
            sdk.chat.completions.create(**question)
            with pytest.raises(RateLimitError, match="quota of 1 requests a day is used up"):
                sdk.chat.completions.create(**question)
        processes.eventually(lambda: len(statuses(gateway)) == 2)


async def leave_at_random(url, name, turns, left):
    """Open streams and leave them in the middle, or read them to their end; count what was let in.

    ``left`` gets the time at which each was left, by its request's id.
    """
    rng = Random(name)
    body = json.dumps(chat("ok:gap=0.01,tokens=12,first=0.02", stream=True))
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {CLIENT_KEY}\r\nconnection: close\r\n"
    let_in = 0
    for turn in range(turns):
        await asyncio.sleep(rng.random() * 0.2)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        identity = f"crowd-{name}-{turn}"
        more = f"x-request-id: {identity}\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(f"{head}{more}{body}".encode())
        with suppress(TimeoutError):
            async with asyncio.timeout(rng.choice([0.02, 0.1, 0.3, 5])):
                let_in += b" 200 " in await reader.readline()
                await reader.read(-1)
        left[identity] = asyncio.get_running_loop().time()
        leave = writer.transport.abort if rng.random() < 0.5 else writer.close
        leave()
        with suppress(OSError):
            await writer.wait_closed()
    return let_in


@pytest.mark.parametrize("workers", [1, 2])
def test_eight_slots_under_two_hundred_clients_that_leave_at_random(launch, upstream, workers):
    sections = {**provider(upstream, max_concurrency=64), "server": {"workers": workers}}
    with launch(**sections, **tiers(concurrency=8)) as gateway:
        began = len(upstream.seen_all())

        left = {}

        async def crowd():
            clients = [leave_at_random(urlsplit(gateway.url), name, 4, left) for name in range(200)]
            return sum(await asyncio.gather(*clients))

        assert asyncio.run(crowd()) > 20
        seen = processes.eventually(lambda: all_ended(upstream.seen_all()[began:]))
        assert 1 < most_at_once(seen, left) <= 8
        with gateway.client() as client, ExitStack() as running:
            processes.eventually(lambda: total(client, "tidegate_inflight_requests") == 0)
            slow = chat("ok:gap=0.05,tokens=400", stream=True)

            def status():
                return running.enter_context(client.stream("POST", CHAT, json=slow)).status_code

            for _ in range(8):
                # A slot is given back just after its call; one that was lost comes free only after 60 s.
                processes.eventually(lambda: status() == 200, within=30)
            assert status() == 429


def all_ended(seen):
    return seen if all(visit["ended"] for visit in seen) else None


def most_at_once(seen, left):
    """The most that certainly ran at a time, whoever was late to notice.

    A call runs from when its upstream heard of it until it was left, or its upstream began to finish it.
    """
    ends = [
        min(visit["finishing"] or visit["ended"], left[visit["headers"]["x-request-id"]]) for visit in seen
    ]
    changes = [(visit["arrived"], 1) for visit in seen] + [(end, -1) for end in ends]
    running = most = 0
    for _, change in sorted(changes):
        running += change
        most = max(most, running)
    return most
