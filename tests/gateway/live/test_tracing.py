"""Traces as an OpenTelemetry collector receives them from a running gateway."""

import secrets
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kit import processes
from tests.kit.chat import CHAT, PROMPT, chat, new_id
from tests.kit.collector import collector
from tests.kit.metrics import total
from tests.kit.processes import ADMIN_KEY, CLIENT_KEY, UPSTREAM_KEY, eventually

QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test"}
MODELS = {
    "plain": {"route": ["up/fake/ok"]},
    "fake/*": {"route": ["up/*"], "retries": {"attempts": 2}},
    "kept/*": {"route": ["up/*"], "cache": {"when": "always"}},
    "two-steps": {"route": ["up/fake/status:code=500", "spare/fake/ok"], "retries": {"attempts": 2}},
    "raced": {
        "route": [["up/fake/ok:first=30", "fast/fake/ok"]],
        "balance": "priority",
        "hedge": {"after": "50ms", "tiers": ["default"]},
    },
    "breaks": {"route": ["up/fake/ok:breaks=1"]},
}
TIERS = {"default": {}, "small": {"limits": {"requests": "1/hour"}}}
KEYS = [
    {"name": "client", "key": CLIENT_KEY, "tenant": "acme"},
    {"name": "small", "key": "tg-small-key-0123456789", "tenant": "small", "tier": "small"},
]


def settings(upstream, folder, otlp, **sections):
    account = {"preset": "vllm", "base_url": f"{upstream.url}/v1", "api_key": UPSTREAM_KEY}
    return processes.settings(
        upstream.url,
        folder / "keys.db",
        observability={"otlp": otlp},
        models=MODELS,
        tiers=TIERS,
        keys=KEYS,
        providers={"up": account, "spare": account, "fast": {**account, "priority": 1}},
        cache={"path": str(folder / "cache.db")},
        **sections,
    )


@pytest.fixture(scope="module")
def received():
    with collector() as running:
        yield running


@pytest.fixture(scope="module")
def traced(upstream, received, tmp_path_factory):
    folder = tmp_path_factory.mktemp("traced")
    with pytest.MonkeyPatch.context() as environment:
        for name, value in QUICK.items():
            environment.setenv(name, value)
        with processes.gateway(folder, settings(upstream, folder, received.url)) as running:
            yield running


def send(gateway, body, key=CLIENT_KEY, **headers):
    """Send a request as part of a trace; the answer, and the trace's id."""
    trace = secrets.token_hex(16)
    told = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01", "x-request-id": new_id(), **headers}
    with gateway.client(key) as client:
        return client.post(CHAT, json=body, headers=told), trace


def tree(received, trace):
    """The span of the request, and those below it in their order."""
    spans = eventually(lambda: received.whole(trace))
    (root,) = [span for span in spans if span.kind == 2]
    steps = [span for span in spans if span is not root]
    assert all(step.parent == root.id for step in steps)
    assert all(root.began <= step.began <= step.ended <= root.ended for step in steps)
    return root, steps


def test_a_retry_and_a_failover_are_a_tree(traced, received, upstream):
    answer, trace = send(traced, {**chat("ok"), "model": "two-steps"})
    assert answer.status_code == 200
    root, steps = tree(received, trace)
    assert root.name == f"POST {CHAT}"
    assert root.parent == "00f067aa0ba902b7"
    failed = "chat fake/status:code=500"
    assert [step.name for step in steps] == [failed, "retry wait", failed, "failover", "chat fake/ok"]
    first, wait, second, over, last = steps
    assert first.ended <= wait.began
    assert wait.ended <= second.began
    assert [step.failed for step in steps] == [True, False, True, False, False]
    assert over.attributes["tidegate.target"] == "spare"
    told = first.attributes
    assert (told["error.type"], told["http.response.status_code"]) == ("UpstreamUnavailable", 500)
    assert {first.kind, second.kind, last.kind} == {3}
    told = last.attributes
    assert told["server.address"] == "127.0.0.1"
    assert upstream.url.endswith(f":{told['server.port']}")
    assert (told["gen_ai.operation.name"], told["gen_ai.request.model"]) == ("chat", "fake/ok")
    assert (told["gen_ai.provider.name"], told["gen_ai.response.model"]) == ("vllm", "fake/ok")
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (7, 12)
    told = root.attributes
    assert (told["http.response.status_code"], told["gen_ai.request.model"]) == (200, "two-steps")
    assert (told["tidegate.tenant"], told["tidegate.upstream"]) == ("acme", "spare")
    assert told["tidegate.request.id"] == answer.headers["x-request-id"]
    assert "error.type" not in told
    assert received.resource["service.name"] == "tidegate"
    assert received.resource["deployment.environment.name"] == "test"


def test_each_attempt_tells_its_upstream_which_span_it_is(traced, received, upstream):
    answer, trace = send(traced, {**chat("ok"), "model": "two-steps"}, tracestate="vendor=1")
    _, steps = tree(received, trace)
    seen = upstream.seen(answer.headers["x-request-id"])
    attempts = [step.id for step in steps if step.kind == 3]
    assert [one["headers"]["traceparent"] for one in seen] == [f"00-{trace}-{span}-01" for span in attempts]
    assert {one["headers"]["tracestate"] for one in seen} == {"vendor=1"}


def test_a_stream_lasts_to_its_end(traced, received):
    answer, trace = send(traced, chat("ok:gap=0.02", stream=True))
    assert answer.text.endswith("data: [DONE]\n\n")
    root, (attempt,) = tree(received, trace)
    lasted = (attempt.ended - attempt.began) / 1e9
    assert lasted >= 0.2
    told = attempt.attributes
    assert told["gen_ai.request.stream"] is True
    assert 0 < told["gen_ai.response.time_to_first_chunk"] < lasted
    assert told["gen_ai.usage.output_tokens"] == 12
    assert root.attributes["gen_ai.request.stream"] is True
    assert abs(time.time_ns() - root.ended) < 60e9


def test_a_hedge_is_a_step_beside_its_attempts(traced, received):
    answer, trace = send(traced, {**chat("ok", stream=True), "model": "raced"})
    assert answer.status_code == 200
    _, steps = tree(received, trace)
    found = {step.name: step for step in steps}
    assert found["hedge"].attributes["tidegate.outcome"] == "won"
    lost = found["chat fake/ok:first=30"]
    assert (lost.attributes["tidegate.outcome"], lost.failed) == ("lost", False)
    assert found["chat fake/ok"].attributes["tidegate.outcome"] == "ok"


def test_what_the_cache_answers_is_a_step_and_no_attempt(traced, received):
    body = {**chat("ok"), "model": "kept/ok"}
    send(traced, body)
    answer, trace = send(traced, body)
    assert answer.headers["x-tidegate-cache"] == "hit"
    _, (hit,) = tree(received, trace)
    assert (hit.name, hit.attributes["tidegate.cache.tier"]) == ("cache hit", "memory")


def test_who_shares_an_answer_links_to_who_fetches_it(traced, received, upstream):
    first_id = new_id()
    model = f"kept/ok:held=0,tag={first_id}"
    body = {**chat("ok"), "model": model}
    with ThreadPoolExecutor() as threads, traced.client() as client:
        leading = threads.submit(send, traced, body, **{"x-request-id": first_id})
        upstream.reached(first_id)
        before = total(client, "tidegate_cache_coalesced_total")
        following = threads.submit(send, traced, body)
        eventually(lambda: total(client, "tidegate_cache_coalesced_total") > before)
        upstream.release(model)
        _, shared = following.result()
        _, fetched = leading.result()
    root, (attempt,) = tree(received, fetched)
    _, (step, hit) = tree(received, shared)
    assert (step.name, step.links) == ("coalesce", [(fetched, root.id)])
    assert (hit.name, hit.attributes["tidegate.cache.tier"]) == ("cache hit", "flight")
    assert attempt.links == []


def test_a_refusal_tells_which_limit(traced, received):
    for _ in range(2):
        answer, trace = send(traced, {**chat("ok"), "model": "plain"}, "tg-small-key-0123456789")
    assert answer.status_code == 429
    root, (refused,) = tree(received, trace)
    assert (refused.name, refused.attributes["tidegate.limit.dimension"]) == ("rate limit", "requests")
    assert (root.attributes["error.type"], root.failed) == ("RateLimited", True)


def test_a_stranger_has_a_trace_and_no_secret_is_in_any(traced, received):
    answer, trace = send(traced, chat("ok"), "tg-stranger-key-0123456789")
    assert answer.status_code == 401
    root, steps = tree(received, trace)
    assert (steps, root.attributes["http.response.status_code"]) == ([], 401)
    sent = b"".join(received.raw)
    for secret in (CLIENT_KEY, ADMIN_KEY, UPSTREAM_KEY, "tg-stranger", PROMPT, "Saint-Malo"):
        assert secret.encode() not in sent


def test_a_client_that_does_not_want_a_trace_gets_none_and_its_upstream_hears_so(traced, received, upstream):
    trace = secrets.token_hex(16)
    answer, _ = send(traced, chat("ok"), traceparent=f"00-{trace}-00f067aa0ba902b7-00")
    (seen,) = upstream.seen(answer.headers["x-request-id"])
    assert seen["headers"]["traceparent"].startswith(f"00-{trace}-")
    assert seen["headers"]["traceparent"].endswith("-00")
    _, later = send(traced, chat("ok"))
    tree(received, later)
    assert received.of(trace) == []


def test_the_access_log_has_the_trace(traced, received):
    answer, trace = send(traced, chat("ok"))
    tree(received, trace)
    identity = answer.headers["x-request-id"]
    (line,) = eventually(lambda: [one for one in traced.access_log() if one["request_id"] == identity])
    assert line["trace_id"] == trace


def test_what_was_not_exported_yet_goes_out_at_the_end(upstream, tmp_path, received, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    with processes.gateway(tmp_path, settings(upstream, tmp_path, f"{received.url}/v1/traces")) as running:
        _, trace = send(running, chat("ok"))
        assert received.of(trace) == []
        running.signal(signal.SIGTERM)
        assert running.wait() == 0
    assert len(received.of(trace)) == 2


def test_a_collector_that_is_away_holds_nobody_up(upstream, tmp_path):
    with processes.gateway(tmp_path, settings(upstream, tmp_path, "http://127.0.0.1:9")) as running:
        answer, _ = send(running, chat("ok"))
        assert answer.status_code == 200
        running.signal(signal.SIGTERM)
        assert running.wait() == 0
        assert "Traceback" not in running.log()


def libraries(gateway):
    """The compiled libraries that its worker has loaded."""
    (worker,) = gateway.workers()
    return Path(f"/proc/{worker}/maps").read_text(encoding="ascii")


def test_without_a_collector_nothing_of_it_is_loaded(launch, traced):
    with launch() as running:
        send(running, chat("ok"))
        (line,) = eventually(lambda: [one for one in running.access_log() if one["path"] == CHAT])
        assert "trace_id" not in line
        assert "google/_upb" not in libraries(running)
    assert "google/_upb" in libraries(traced)
