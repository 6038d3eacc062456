"""The usage ledger as operators see it: what each request left there, as JSON, as CSV and in a terminal."""

import asyncio
import csv
import io
import json
import re
import socket
from datetime import UTC, datetime

import httpx
import openai
import pytest

from tests.kit import processes
from tests.kit.chat import CHAT, PROMPT, chat, new_id
from tests.kit.metrics import total
from tests.kit.processes import ADMIN_KEY, CLIENT_KEY, eventually, run

PRICE = {"input": 2, "cached_input": 0.5, "output": 8}
ENERGY = {"input": 1, "cached_input": 0.1, "output": 4, "pue": 1.5}
JOULES = 1.5 * (7 * 1 + 12 * 4)
DOLLARS = 7 * 2e-6 + 12 * 8e-6
"""The faulty upstream's usual answer: 7 tokens in, 12 out."""


def providers(url):
    def provider(**more):
        return {
            "preset": "vllm", "base_url": f"{url}/v1", "api_key": processes.UPSTREAM_KEY,
            "prices": {"*": PRICE}, "energy": {"*": ENERGY}, **more,
        }  # fmt: skip

    return {
        "up": provider(),
        "free": provider(prices={}),
        "bills": provider(bills_cancelled=True),
        "stops": provider(bills_cancelled=False),
        "fast": provider(priority=1),
    }


def hedged(slow):
    return {
        "route": [[f"{slow}/fake/ok:first=30", "fast/fake/ok"]],
        "balance": "priority",
        "hedge": {"after": "50ms", "tiers": ["default"]},
    }


@pytest.fixture(scope="module")
def books(upstream, tmp_path_factory):
    folder = tmp_path_factory.mktemp("books")
    one = {"retries": {"attempts": 1}, "on_stream_break": "error"}
    models = {
        "fake/*": {"route": ["up/*"], **one},
        "free": {"route": ["free/fake/ok"]},
        "patient": {"route": ["up/fake/silence", "fast/fake/ok"], "timeouts": {"unary": "2s"}, **one},
        "billed-*": {"route": ["bills/*"], **one},
        "cached/*": {"route": ["up/*"], "cache": {"exact": "1s", "stale_while_revalidate": "1h"}, **one},
        "kept/*": {"route": ["up/*"], "cache": {"exact": "1h"}, **one},
        "hedged-bills": hedged("bills"),
        "hedged-stops": hedged("stops"),
    }
    keys = [
        {"name": "client", "key": CLIENT_KEY, "tenant": "acme"},
        {"name": "small", "key": "tg-small", "tenant": "=small", "models": ["fake/ok"]},
    ]
    config = processes.settings(
        upstream.url,
        folder / "keys.db",
        providers=providers(upstream.url),
        models=models,
        keys=keys,
        cache={"path": str(folder / "cache.db")},
    )
    with processes.gateway(folder, config) as running:
        yield running


@pytest.fixture
def client(books):
    with books.client() as opened:
        yield opened


@pytest.fixture
def admin(books):
    with books.admin() as opened:
        yield opened


def send(client, body, identity=None):
    identity = identity or new_id()
    response = client.post(CHAT, json=body, headers={"x-request-id": identity})
    return identity, response


def rows(admin, identity):
    """The rows of a request, once it has any."""

    def found():
        response = admin.get("/admin/usage/requests", params={"request_id": identity})
        assert response.status_code == 200, response.text
        return response.json()

    return eventually(found)


def row(admin, identity):
    (only,) = rows(admin, identity)
    return only


def tokens(found):
    return found["input_tokens"], found["output_tokens"]


@pytest.mark.parametrize("stream", [False, True])
def test_what_an_sdk_is_told_is_what_the_ledger_has(books, admin, stream):
    identity = new_id()
    with openai.OpenAI(base_url=f"{books.url}/v1", api_key=CLIENT_KEY, max_retries=0) as sdk:
        options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
        raw = sdk.chat.completions.with_raw_response.create(
            model="fake/ok",
            messages=[{"role": "user", "content": PROMPT}],
            extra_headers={"x-request-id": identity},
            **options,
        )
        answer = raw.parse()
        usage = list(answer)[-1].usage if stream else answer.usage
    found = row(admin, identity)
    assert tokens(found) == (usage.prompt_tokens, usage.completion_tokens) == (7, 12)
    assert found["cost"] == pytest.approx(DOLLARS)
    assert (found["tenant"], found["key"], found["tier"]) == ("acme", "declared:client", "default")
    assert (found["upstream"], found["model"], found["served_model"]) == ("up", "fake/ok", "fake/ok")
    assert (found["outcome"], found["status"], found["stream"], found["estimated"]) == (
        "ok",
        200,
        stream,
        False,
    )
    assert 0 < found["first_token"] <= found["duration"]
    assert datetime.now(UTC).timestamp() - datetime.fromisoformat(found["at"]).timestamp() < 60
    if stream:
        assert "x-tidegate-cost" not in raw.headers
        assert "x-tidegate-energy-j" not in raw.headers
    else:
        assert float(raw.headers["x-tidegate-cost"]) == found["cost"]
        assert float(raw.headers["x-tidegate-energy-j"]) == found["energy"]
        assert raw.headers["x-tidegate-energy-source"] == "estimated"
    assert (found["energy"], found["energy_wasted"], found["measured"]) == (JOULES, 0, False)
    assert found["flops"] is None


def test_without_a_price_there_is_no_cost(client, admin):
    identity, response = send(client, {**chat("ok"), "model": "free"})
    assert "x-tidegate-cost" not in response.headers
    found = row(admin, identity)
    assert (found["cost"], tokens(found)) == (None, (7, 12))
    summed = admin.get("/admin/usage", params={"by": "model", "model": "free"}).json()
    assert summed["totals"]["cost"] is None
    assert summed["totals"]["unpriced"] == summed["totals"]["requests"] == 1


@pytest.mark.parametrize(
    ("body", "outcome", "status"),
    [
        (chat("status:code=500"), "UpstreamUnavailable", 502),
        (chat("status:code=400"), "UpstreamRejected", 400),
        ({**chat("ok"), "model": "nobody-has-it"}, "ModelNotFound", 404),
        ({"model": 7}, "InvalidRequest", 400),
    ],
)
def test_what_failed_or_was_refused_is_there_and_costs_nothing(client, admin, body, outcome, status):
    identity, response = send(client, body)
    found = row(admin, identity)
    assert (found["outcome"], found["status"]) == (outcome, response.status_code) == (outcome, status)
    assert (tokens(found), found["cost"], found["upstream"]) == ((0, 0), 0, "")


def test_a_stranger_is_in_nobody_s_books(books, admin, client):
    identity = new_id()
    with books.client("tg-unknown") as stranger:
        assert send(stranger, chat("ok"), identity)[1].status_code == 401
    last, _ = send(client, chat("ok"))
    row(admin, last)
    assert admin.get("/admin/usage/requests", params={"request_id": identity}).json() == []


def test_a_stream_that_its_client_leaves_costs_what_was_delivered(client, admin):
    identity = new_id()
    body = chat("ok:tokens=1000,gap=0.02", stream=True)
    with client.stream("POST", CHAT, json=body, headers={"x-request-id": identity}) as response:
        text = "".join(
            json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
            for line, _ in zip((line for line in response.iter_lines() if line), range(12), strict=False)
        )
    found = row(admin, identity)
    assert (found["outcome"], found["estimated"]) == ("cancelled", True)
    assert found["input_tokens"] > 0
    assert len(text) / 4 <= found["output_tokens"] < 200
    expected = found["input_tokens"] * 2e-6 + found["output_tokens"] * 8e-6
    assert found["cost"] == pytest.approx(expected)


@pytest.mark.parametrize(("model", "billed"), [("billed-x/silence", True), ("fake/silence", False)])
def test_leaving_before_the_first_token_costs_the_prompt_where_the_provider_bills_it(
    books, upstream, admin, model, billed
):
    identity = new_id()
    content = json.dumps({**chat("silence", stream=True), "model": model}).encode()
    host, _, port = books.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as raw:
        lines = [f"POST {CHAT} HTTP/1.1", "host: x", f"authorization: Bearer {CLIENT_KEY}"]
        lines += [f"x-request-id: {identity}", f"content-length: {len(content)}", "", ""]
        raw.sendall("\r\n".join(lines).encode() + content)
        upstream.reached(identity)
    found = row(admin, identity)
    assert (found["outcome"], found["estimated"], found["output_tokens"]) == ("cancelled", True, 0)
    assert found["input_tokens"] > 0
    assert (found["cost"] > 0) is billed


@pytest.mark.parametrize(("model", "billed"), [("hedged-bills", True), ("hedged-stops", False)])
def test_the_loser_of_a_hedge_is_there_if_its_provider_bills_it(client, admin, model, billed):
    identity, response = send(client, {**chat("ok", stream=True), "model": model})
    assert response.headers["x-tidegate-upstream"] == "fast"
    found = {one["kind"]: one for one in rows(admin, identity)}
    answer = found.pop("answer")
    assert (answer["upstream"], answer["requests"], tokens(answer)) == ("fast", 1, (7, 12))
    assert set(found) == ({"extra"} if billed else set())
    if billed:
        extra = found["extra"]
        assert (extra["upstream"], extra["outcome"], extra["requests"]) == ("bills", "lost", 0)
        assert (tokens(extra), extra["estimated"]) == ((7, 12), True)
        assert extra["cost"] == pytest.approx(DOLLARS)
    summed = admin.get("/admin/usage", params={"by": "model", "model": model}).json()["totals"]
    assert (summed["requests"], summed["output_tokens"]) == (1, 24 if billed else 12)


def test_groups_add_up_to_the_totals(client, admin):
    send(client, chat("ok"))
    last, _ = send(client, {**chat("ok"), "model": "free"})
    row(admin, last)
    totals = None
    for by in ("day", "model", "upstream", "day,tenant,key,tier,model,upstream,served_model"):
        answer = admin.get("/admin/usage", params={"by": by}).json()
        assert answer["by"] == by.split(",")
        for name in (
            "requests",
            "refused",
            "failed",
            "cancelled",
            "input_tokens",
            "output_tokens",
            "unpriced",
            "energy",
            "energy_measured",
            "energy_wasted",
            "flops",
        ):
            summed = sum(group[name] for group in answer["rows"])
            assert summed == pytest.approx(answer["totals"][name])
        costs = [group["cost"] or 0 for group in answer["rows"]]
        assert sum(costs) == pytest.approx(answer["totals"]["cost"])
        totals = totals or answer["totals"]
        assert answer["totals"] == totals
    detail = admin.get("/admin/usage/requests", params={"limit": 1000}).json()
    assert sum(one["requests"] for one in detail) == totals["requests"]
    assert sum(one["input_tokens"] for one in detail) == totals["input_tokens"]
    assert sum(one["energy"] for one in detail) == pytest.approx(totals["energy"])


def test_what_the_cache_fetches_anew_is_a_row_beside_the_request_s(client, admin):
    body = {**chat("ok"), "model": "cached/ok", "temperature": 0}
    first, _ = send(client, body)
    assert tokens(row(admin, first)) == (7, 12)

    def stale():
        identity, response = send(client, body)
        return identity if response.headers["x-tidegate-cache"] == "stale" else None

    identity = eventually(stale)

    def both():
        found = {one["kind"]: one for one in rows(admin, identity)}
        return found if len(found) == 2 else None

    found = eventually(both)
    answer, extra = found["answer"], found["extra"]
    assert (answer["cache_hit"], tokens(answer), answer["cost"]) == (True, (0, 0), 0)
    assert (extra["cache_hit"], tokens(extra), extra["requests"]) == (False, (7, 12), 0)
    assert extra["cost"] == pytest.approx(DOLLARS)
    assert [extra[name] for name in ("tenant", "key", "upstream")] == [answer["tenant"], answer["key"], "up"]


@pytest.mark.parametrize("held", [0, 3])
async def test_an_answer_that_two_share_is_paid_once_when_the_first_leaves(
    books, client, admin, upstream, held
):
    payer, heir = new_id(), new_id()
    model = f"cached/ok:held={held},tag={payer}"
    body = {**chat("ok", stream=True), "model": model, "temperature": 0}

    def joined():
        return total(client, "tidegate_cache_coalesced_total")

    async def ask(identity):
        headers = {"authorization": f"Bearer {CLIENT_KEY}", "x-request-id": identity}
        options = {"verify": False, "timeout": processes.PATIENCE}
        async with httpx.AsyncClient(base_url=books.url, headers=headers, **options) as asking:
            return await asking.post(CHAT, json=body)

    before = joined()
    leaving = asyncio.create_task(ask(payer))
    await asyncio.to_thread(upstream.reached, payer)
    staying = asyncio.create_task(ask(heir))
    await asyncio.to_thread(eventually, lambda: joined() > before)
    leaving.cancel()
    left = await asyncio.to_thread(row, admin, payer)
    upstream.release(model)
    assert (await staying).status_code == 200
    stayed = row(admin, heir)
    assert (tokens(left), left["cost"]) == ((0, 0), 0)
    assert (tokens(stayed), stayed["cost"]) == ((7, 12), pytest.approx(DOLLARS))
    assert (stayed["upstream"], stayed["cache_hit"]) == ("up", False)
    assert len(upstream.seen(payer)) == 1
    assert upstream.seen(heir) == []


def test_an_attempt_that_is_given_up_took_energy_all_the_same(client, admin):
    identity, response = send(client, {**chat("ok"), "model": "patient"})
    assert response.headers["x-tidegate-attempts"] == "2"
    found = row(admin, identity)
    assert (tokens(found), found["upstream"]) == ((7, 12), "fast")
    assert found["energy_wasted"] == 1.5 * 7
    assert found["energy"] == JOULES + 1.5 * 7
    assert float(response.headers["x-tidegate-energy-j"]) == JOULES
    metrics = client.get("/metrics").text
    assert 'tidegate_energy_wasted_joules_total{model="patient",upstream="up"} 10.5' in metrics


def test_what_the_cache_has_takes_no_energy(client, admin):
    body = {**chat("ok"), "model": "kept/ok", "temperature": 0}
    first, _ = send(client, body)
    assert row(admin, first)["energy"] == JOULES
    identity, response = send(client, body)
    assert response.headers["x-tidegate-cache"] == "hit"
    assert float(response.headers["x-tidegate-energy-j"]) == row(admin, identity)["energy"] == 0
    assert "x-tidegate-energy-source" not in response.headers


def test_a_tenant_has_its_own(books, admin):
    with books.client("tg-small") as small:
        identity, _ = send(small, chat("ok"))
    row(admin, identity)
    answer = admin.get("/admin/tenants/=small/usage", params={"by": "model"}).json()
    assert [(one["model"], one["requests"]) for one in answer["rows"]] == [("fake/ok", 1)]
    assert admin.get("/admin/tenants/nobody/usage").json()["totals"]["requests"] == 0


def test_csv_is_what_a_csv_reader_reads(books, client, admin):
    with books.client("tg-small") as small:
        send(small, chat("ok"))
    identity, _ = send(client, {**chat("ok"), "model": "free"})
    row(admin, identity)
    answer = admin.get("/admin/usage", params={"by": "tenant,model"}, headers={"accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    assert re.fullmatch(r'attachment; filename="usage-[\d-]+\.csv"', answer.headers["content-disposition"])
    found = list(csv.DictReader(io.StringIO(answer.text)))
    expected = admin.get("/admin/usage", params={"by": "tenant,model"}).json()["rows"]
    assert len(found) == len(expected)
    for told, meant in zip(found, expected, strict=True):
        assert told["tenant"].removeprefix("'") == meant["tenant"]
        assert int(told["input_tokens"]) == meant["input_tokens"]
        assert (float(told["cost"]) if told["cost"] else None) == meant["cost"]
    assert "'=small" in {told["tenant"] for told in found}  # no formula of a spreadsheet
    detail = admin.get("/admin/usage/requests", params={"format": "csv"})
    listed = list(csv.DictReader(io.StringIO(detail.text)))
    assert len({one["id"] for one in listed}) == len(listed)
    assert identity in {one["request_id"] for one in listed}


def test_pages_lead_to_each_other(client, admin):
    for _ in range(5):
        last, _ = send(client, chat("ok"))
    row(admin, last)
    url, seen = "/admin/usage/requests?limit=2&model=fake/ok", []
    while url:
        page = admin.get(url)
        seen += [one["id"] for one in page.json()]
        url = page.links["next"]["url"] if "next" in page.links else None
    assert len(seen) == len(set(seen)) >= 5
    whole = admin.get("/admin/usage/requests?limit=1000&model=fake/ok").json()
    assert seen == [one["id"] for one in whole]


@pytest.mark.parametrize(
    "path",
    [
        "/admin/usage?from=yesterday",
        "/admin/usage?from=2026-11-02&to=2026-11-01",
        "/admin/usage?by=shoe",
        "/admin/usage?format=xml",
        "/admin/usage/requests?since=2026-11-01",
        "/admin/usage/requests?after=nonsense",
        "/admin/usage/requests?limit=0",
    ],
)
def test_a_bad_question_is_told_what_is_wrong_with_it(admin, path):
    answer = admin.get(path)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


def test_only_admin_keys_may_read(client):
    for path in ("/admin/usage", "/admin/usage/requests", "/admin/tenants/acme/usage"):
        assert client.get(path).status_code == 403


def test_a_viewer_may_read(books, admin):
    made = admin.post("/admin/keys", json={"name": "v", "tenant": "ops", "role": "viewer"})
    assert made.status_code == 201, made.text
    with books.client(made.json()["key"]) as viewer:
        assert viewer.get("/admin/usage").status_code == 200


def test_a_terminal_shows_it(books, client, admin):
    identity, _ = send(client, chat("ok"))
    row(admin, identity)
    environ = {"TIDEGATE_URL": books.url, "TIDEGATE_ADMIN_KEY": ADMIN_KEY}
    table = run("usage", "--by", "model", "--tenant", "acme", **environ)
    assert table.returncode == 0, table.stderr
    assert re.search(r"fake/ok .*\$0\.0.*~[\d.]+ mWh", table.stdout)
    assert "total" in table.stdout
    shown = run("usage", "--by", "model", "--json", **environ)
    assert json.loads(shown.stdout)["by"] == ["model"]
    listed = run("usage", "--csv", "--from", "2026-01-01", **environ)
    (heading, *_) = csv.reader(io.StringIO(listed.stdout))
    assert heading[:2] == ["day", "requests"]
    wrong = run("usage", "--from", "yesterday", **environ)
    assert (wrong.returncode, "from" in wrong.stderr) == (1, True)


def test_metrics_count_what_the_ledger_has(client, admin):
    def metric(name, **labels):
        text = ",".join(f'{label}="{value}"' for label, value in labels.items())
        found = re.search(
            rf"^{name}(?:{{{re.escape(text)}}})? (\S+)$", client.get("/metrics").text, re.MULTILINE
        )
        return float(found[1]) if found else 0.0

    before = metric("tidegate_usage_tokens_total", model="fake/*", tier="default", type="output")
    cost = metric("tidegate_usage_cost_dollars_total", model="fake/*", tier="default")
    series = {"model": "fake/*", "source": "estimated", "upstream": "up"}
    energy = metric("tidegate_energy_joules_total", **series)
    identity, _ = send(client, chat("ok"))
    row(admin, identity)
    assert metric("tidegate_usage_tokens_total", model="fake/*", tier="default", type="output") == before + 12
    now = metric("tidegate_usage_cost_dollars_total", model="fake/*", tier="default")
    assert now - cost == pytest.approx(DOLLARS)
    assert metric("tidegate_energy_joules_total", **series) - energy == pytest.approx(JOULES)
    eventually(lambda: metric("tidegate_ledger_rows_written_total") > 0)
    eventually(lambda: metric("tidegate_ledger_rows_waiting") == 0)
