"""Upstreams as an operator sees and orders them: over the admin API, from a terminal, at every worker."""

import json

import pytest

from tests.kit import processes
from tests.kit.chat import CHAT, chat
from tests.kit.processes import ADMIN_KEY, CLIENT_KEY, eventually, run

PLAIN = {"model": "plain", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def pair(upstream, tmp_path_factory):
    folder = tmp_path_factory.mktemp("orders")
    config = processes.settings(upstream.url, folder / "keys.db", server={"workers": 2})
    with processes.gateway(folder, config) as running:
        yield running


def answers(gateway, count=12):
    """The statuses of calls over as many connections, which spread over the workers."""
    found = set()
    for _ in range(count):
        with gateway.client(CLIENT_KEY) as client:
            found.add(client.post(CHAT, json=PLAIN).status_code)
    return found


def listed(gateway):
    with gateway.admin() as admin:
        return {one["model"]: one for one in admin.get("/admin/upstreams").json()}


def test_an_upstream_is_shown_with_what_is_known_of_it(gateway):
    with gateway.client(CLIENT_KEY) as client:
        assert client.post(CHAT, json=chat("ok")).status_code == 200
    seen = listed(gateway)["fake/ok"]
    assert (seen["upstream"], seen["state"], seen["why"]) == ("up", "closed", "")
    assert seen["limit"] >= 8
    eventually(lambda: listed(gateway)["fake/ok"]["inflight"] == 0)
    assert seen["waiting"] == 0


def test_a_drain_and_a_resume_reach_every_worker(pair):
    assert answers(pair) == {200}
    with pair.admin() as admin:
        ordered = admin.post("/admin/upstreams/up/drain")
        assert (ordered.status_code, ordered.json()) == (202, {"upstream": "up", "ordered": "drain"})
        eventually(lambda: answers(pair) == {503})
        eventually(lambda: listed(pair)["fake/ok"]["state"] == "draining")
        assert admin.post("/admin/upstreams/up/resume").status_code == 202
        eventually(lambda: answers(pair) == {200})


def test_a_drain_outlives_a_restart(upstream, tmp_path):
    config = processes.settings(upstream.url, tmp_path / "keys.db")
    with processes.gateway(tmp_path, config) as first, first.admin() as admin:
        assert admin.post("/admin/upstreams/up/drain").status_code == 202
    with processes.gateway(tmp_path, config) as second:
        assert answers(second, count=1) == {503}
        assert listed(second)["fake/ok"]["why"] == "drained by an operator"


def test_a_key_that_the_upstream_refuses_is_told_with_the_next_look(gateway):
    with gateway.client(CLIENT_KEY) as client:
        assert client.post(CHAT, json=chat("status:code=401,tag=orders")).status_code == 502
    (seen,) = [one for model, one in listed(gateway).items() if model.endswith("tag=orders")]
    assert (seen["state"], seen["why"].split(":")[0]) == ("disabled", "UpstreamKeyRejected")
    assert 800 < seen["next_probe"] <= 900


def test_the_command_orders_and_shows_the_same(pair):
    def call(*argv):
        return run("upstreams", *argv, TIDEGATE_URL=pair.url, TIDEGATE_ADMIN_KEY=ADMIN_KEY)

    assert "up/fake/ok" in call("list").stdout
    assert json.loads(call("list", "--json").stdout)[0]["upstream"] == "up"
    assert call("drain", "up").stdout == "up is draining\n"
    eventually(lambda: answers(pair) == {503})
    assert call("resume", "up").returncode == 0
    eventually(lambda: answers(pair) == {200})
    assert call("probe", "up").stdout == "up is being probed\n"
    unknown = call("drain", "nobody")
    assert (unknown.returncode, "no upstream nobody" in unknown.stderr) == (1, True)


@pytest.mark.parametrize("action", ["drain", "resume", "probe"])
def test_an_unknown_upstream_is_a_problem(gateway, action):
    with gateway.admin() as admin:
        answer = admin.post(f"/admin/upstreams/nobody/{action}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
