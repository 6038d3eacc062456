"""Exemplars: from a bucket of a histogram to the trace of a call in it, of two workers, whoever is asked."""

import re
import secrets

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.kit import processes
from tests.kit.chat import CHAT, chat
from tests.kit.collector import collector
from tests.kit.ports import free_port
from tests.kit.processes import PATIENCE, eventually
from tests.kit.prometheus import prometheus
from tests.kit.workers import each, ready

MODELS = {name: {"route": ["up/fake/ok"]} for name in ("one", "other", "untraced")}
OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3"
DURATION = "gen_ai_server_request_duration_seconds_bucket"


@pytest.fixture(scope="module")
def pair(upstream, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    with collector() as receiving:
        config = processes.settings(
            upstream.url,
            folder / "keys.db",
            server={"workers": 2},
            models=MODELS,
            observability={"otlp": receiving.url},
        )
        with processes.gateway(folder, config) as running:
            yield ready(running)


def send(gateway, model, kept="01"):
    """Send a request as part of a trace, and wait until it is counted; the trace's id."""
    trace = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-{kept}"}
    with gateway.client() as client:
        assert client.post(CHAT, json={**chat("ok"), "model": model}, headers=headers).status_code == 200
    eventually(lambda: re.search(rf'tidegate_requests_total{{model="{model}"', scrape(gateway, "*/*").text))
    return trace


def scrape(gateway, accept):
    return httpx.get(f"{gateway.url}/metrics", headers={"accept": accept}, timeout=PATIENCE)


def exemplars(gateway, name):
    """By model, the traces of a histogram's buckets."""
    answer = scrape(gateway, OPENMETRICS)
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    found = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            if sample.name == name and sample.exemplar:
                assert sample.exemplar.value <= float(sample.labels["le"])
                traces = found.setdefault(sample.labels.get("gen_ai_request_model"), set())
                traces.add(sample.exemplar.labels["trace_id"])
    return found


def test_each_worker_tells_the_traces_of_both(pair):
    expected = {}
    for _, model in zip(each(pair), ("one", "other"), strict=True):
        expected[model] = {send(pair, model)}
        send(pair, "untraced", kept="00")
    for _ in each(pair):
        assert exemplars(pair, DURATION) == expected
        assert exemplars(pair, "tidegate_overhead_seconds_bucket")[None] <= set.union(*expected.values())
    last = send(pair, "one")
    eventually(lambda: last in exemplars(pair, DURATION)["one"])


def test_the_plain_format_has_none(pair):
    send(pair, "one")
    answer = scrape(pair, "text/plain")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert DURATION in answer.text
    assert "trace_id" not in answer.text


def test_prometheus_keeps_them(pair, tmp_path):
    config = {
        "scrape_configs": [
            {
                "job_name": "tidegate",
                "scrape_interval": "2s",  # which is the timeout too
                "static_configs": [{"targets": [pair.url.removeprefix("http://")]}],
            }
        ]
    }
    flag = "--enable-feature=exemplar-storage"
    with prometheus(tmp_path, config, free_port(), flag) as url:
        if url is None:
            pytest.skip("no prometheus here: apt-get install prometheus")
        trace = send(pair, "one")

        def kept():
            asked = {"query": f'{DURATION}{{gen_ai_request_model="one"}}', "start": 0, "end": 1e11}
            told = httpx.get(f"{url}/api/v1/query_exemplars", params=asked, timeout=PATIENCE).json()["data"]
            return [each["labels"]["trace_id"] for series in told for each in series["exemplars"]]

        eventually(lambda: trace in kept())
