"""Two workers that act as one: keys, configuration and metrics, and the death of one of them."""

import os
import re
import signal

import httpx
import pytest
import yaml

from gateway.settings.schema import Server
from tests.kit import processes
from tests.kit.chat import CHAT, chat, new_id
from tests.kit.lateness import promised
from tests.kit.processes import CLIENT_KEY, alive, eventually
from tests.kit.workers import each, get, only, ready, status


@pytest.fixture(scope="module")
def pair(upstream, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    config = processes.settings(upstream.url, folder / "keys.db", server={"workers": 2})
    with processes.gateway(folder, config) as running:
        yield ready(running)


def models(gateway):
    answer = get(gateway, CLIENT_KEY)
    return answer and {model["id"] for model in answer.json()["data"]}


def write(gateway, text):
    """Change the configuration's file, as an editor does: a new file in the old one's place."""
    fresh = gateway.config.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(gateway.config)


def rewrite(gateway, **sections):
    write(gateway, yaml.safe_dump({**yaml.safe_load(gateway.config.read_text()), **sections}))


def routes(*names):
    plain = {name: {"route": ["up/fake/ok"]} for name in names}
    return {"fake/*": {"route": ["up/*"], "retries": {"attempts": 1}}, **plain}


def assert_models(gateway, *names):
    for _ in each(gateway):
        eventually(lambda: models(gateway) == set(names))


def test_a_key_opens_every_worker_within_two_seconds_and_none_when_it_is_deleted(pair):
    assert Server().poll <= 1
    with pair.admin() as admin:
        made = admin.post("/admin/keys", json={"name": "new", "tenant": "t"}).json()
        for _ in each(pair):
            promised(lambda: status(pair, made["key"]) == 200, within=2)
        assert admin.delete(f"/admin/keys/{made['id']}").status_code == 204
        for _ in each(pair):
            promised(lambda: status(pair, made["key"]) == 401, within=2)


def test_reload_when_the_file_changes(pair):
    rewrite(pair, models=routes("by-file"))
    assert_models(pair, "by-file")


def test_reload_by_signal(pair):
    rewrite(pair, models=routes("by-signal"))
    pair.signal(signal.SIGHUP)
    assert_models(pair, "by-signal")


def test_reload_by_the_admin_api(pair):
    rewrite(pair, models=routes("by-api"))
    with pair.admin() as admin:
        answer = admin.post("/admin/reload")
        assert (answer.status_code, answer.json()["status"]) == (202, "reloading")
    assert_models(pair, "by-api")


def test_a_declared_key_comes_and_goes_with_the_file(pair):
    declared = yaml.safe_load(pair.config.read_text())["keys"]
    rewrite(pair, keys=[*declared, {"name": "second", "key": "tg-second", "tenant": "b"}])
    for _ in each(pair):
        eventually(lambda: status(pair, "tg-second") == 200)
    rewrite(pair, keys=declared)
    for _ in each(pair):
        eventually(lambda: status(pair, "tg-second") == 401)


def test_a_bad_file_leaves_the_old_one_running_and_says_why(pair):
    good = pair.config.read_text()
    before = models(pair)
    write(pair, good + "\nmodles: {}\n")
    try:
        with pair.admin() as admin:
            refused = admin.post("/admin/reload")
        assert refused.status_code == 422
        assert refused.headers["content-type"] == "application/problem+json"
        (error,) = refused.json()["errors"]
        assert re.search(r":\d+: modles: unknown key; did you mean 'models'\?", error)
        pair.signal(signal.SIGHUP)
        pair.line_with(r"the old one keeps running:\n.*modles")
        assert_models(pair, *before)
        replace(pair, pair.workers()[0])
        assert_models(pair, *before)
    finally:
        write(pair, good)


def counted(gateway, name, **labels):
    """The value of a series as /metrics tells it; 0 where there is none."""
    text = get(gateway, CLIENT_KEY, "/metrics").text
    for line in text.splitlines():
        if line.startswith(name + "{") and all(f'{key}="{value}"' in line for key, value in labels.items()):
            return float(line.rpartition(" ")[2])
    return 0.0


def answered(gateway):
    return counted(gateway, "tidegate_requests_total", operation="chat", model="fake/*", outcome="ok")


def ask(gateway):
    """Get an answer, and wait until it is counted: that follows when the client has it."""
    before = answered(gateway)
    with gateway.client() as client:
        assert client.post(CHAT, json=chat("ok")).status_code == 200
    eventually(lambda: answered(gateway) == before + 1)


def replace(gateway, victim):
    """Kill a worker and wait until another one serves in its place."""
    others = set(gateway.workers()) - {victim}
    os.kill(victim, signal.SIGKILL)
    (fresh,) = eventually(lambda: set(gateway.workers()) - others - {victim})
    with only(gateway, fresh):
        eventually(lambda: status(gateway, CLIENT_KEY) == 200)


def test_metrics_are_those_of_all_workers_whoever_is_asked(pair):
    before = answered(pair)
    for _ in each(pair):
        for _ in range(3):
            ask(pair)
    for _ in each(pair):
        assert answered(pair) == before + 6
        tokens = counted(pair, "gen_ai_client_token_usage_sum", gen_ai_token_type="output")
        assert tokens >= 6 * 12


def test_a_worker_that_is_killed_is_replaced_and_its_counts_are_kept(pair, upstream):
    before = answered(pair)
    victim, other = pair.workers()
    identity = new_id()
    with only(pair, victim):
        ask(pair)
        with (
            pair.client() as client,
            client.stream(
                "POST", CHAT, json=chat("stall:at=2", stream=True), headers={"x-request-id": identity}
            ) as response,
        ):
            answer = response.iter_raw()  # which ends the request when it is forgotten
            next(answer)
            assert counted(pair, "tidegate_inflight_requests", operation="chat") == 1
            os.kill(victim, signal.SIGKILL)
            eventually(lambda: not alive(victim))
            with pytest.raises(httpx.TransportError):
                list(answer)
    for _ in range(10):
        assert status(pair, CLIENT_KEY) == 200  # the other one serves
    assert upstream.ended(identity)["end"] == "disconnected"
    eventually(lambda: len(pair.workers()) == 2)
    assert other in pair.workers()
    (fresh,) = set(pair.workers()) - {other}
    with only(pair, fresh):
        eventually(lambda: status(pair, CLIENT_KEY) == 200)
        ask(pair)
    for _ in each(pair):
        assert answered(pair) == before + 2
        eventually(lambda: counted(pair, "tidegate_inflight_requests", operation="chat") == 0)
    # Two workers, each of which found one limit of its own: the dead one's gauges went with it.
    eventually(lambda: counted(pair, "tidegate_upstream_state", upstream="up", state="closed") == 2)


def test_a_reload_while_a_worker_starts_kills_nobody(pair):
    victim, other = pair.workers()
    os.kill(victim, signal.SIGKILL)
    fresh = eventually(lambda: [worker for worker in pair.workers() if worker not in {victim, other}])
    for _ in range(20):
        pair.signal(signal.SIGHUP)
    with only(pair, fresh[0]):
        eventually(lambda: status(pair, CLIENT_KEY) == 200)
    assert fresh[0] in pair.workers()
