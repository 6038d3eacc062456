"""The admin API: who may do what, keys, tiers and tenants that change while the gateway runs, the audit."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.kit import processes
from tests.kit.chat import CHAT, chat, new_id
from tests.kit.processes import CLIENT_KEY, eventually


@pytest.fixture
def admin(gateway):
    with gateway.admin() as opened:
        yield opened


@pytest.fixture
def name():
    """A name that no other test uses."""
    return new_id()


@pytest.fixture
def key_of(admin):
    """Make a key; it is deleted in the end."""
    made = []

    def make(**fields):
        answer = admin.post("/admin/keys", json={"name": "test", "tenant": "acme", **fields})
        assert answer.status_code == 201, answer.text
        made.append(answer.json()["id"])
        return answer.json()

    yield make
    for key_id in made:
        admin.delete(f"/admin/keys/{key_id}")


@pytest.fixture
def as_role(gateway, key_of):
    """A client with a key of this role."""
    opened = []

    def open_client(role):
        client = gateway.client(key_of(role=role, tenant="ops")["key"])
        opened.append(client)
        return client

    yield open_client
    for client in opened:
        client.close()


def replica(upstream, folder, database):
    config = processes.settings(upstream.url, folder / "unused.db")
    return processes.gateway(folder, {**config, "database": database})


def problem(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.json()["detail"]


def test_viewers_read_everything_and_change_nothing(as_role):
    viewer = as_role("viewer")
    description = viewer.get("/openapi.json").json()
    tried = 0
    for path, operations in description["paths"].items():
        if not path.startswith("/admin"):
            continue
        for method in operations:
            url = re.sub(r"\{\w+\}", "x", path)
            if method == "get":
                with viewer.stream("GET", url) as answer:  # the events have no end
                    assert answer.status_code in {200, 404}, path
            else:
                answer = viewer.request(method, url, json={})
                assert "role operator; this one has the role viewer" in problem(answer, 403), (method, path)
            tried += 1
    assert tried > 15


def test_operators_touch_clients_keys_and_owners_all(as_role, admin):
    operator = as_role("operator")
    wanted = {"name": "n", "tenant": "t"}
    made = operator.post("/admin/keys", json=wanted).json()
    assert operator.delete(f"/admin/keys/{made['id']}").status_code == 204
    for role in ("viewer", "operator", "owner"):
        assert "role owner" in problem(operator.post("/admin/keys", json={**wanted, "role": role}), 403)
    viewers = admin.post("/admin/keys", json={**wanted, "role": "viewer"}).json()
    path = f"/admin/keys/{viewers['id']}"
    assert operator.get(path).status_code == 200
    for answer in (operator.patch(path, json={}), operator.post(f"{path}/rotate"), operator.delete(path)):
        assert "role owner" in problem(answer, 403)
    assert as_role("owner").delete(path).status_code == 204


def test_a_clients_key_and_an_admins_open_different_doors(gateway, as_role):
    with gateway.client(CLIENT_KEY) as client:
        assert "role viewer" in problem(client.get("/admin/tiers"), 403)
    assert as_role("owner").get("/v1/models").status_code == 403


def test_a_key_changes_and_keeps_what_was_not_named(admin, key_of):
    key = key_of(models=["fake/*"], limits={"requests": "5/minute"}, expires="2090-01-01T00:00:00Z")
    path = f"/admin/keys/{key['id']}"
    changed = admin.patch(path, json={"name": "other", "expires": None}).json()
    assert changed == {**admin.get(path).json(), "name": "other", "expires": None}
    assert (changed["models"], changed["limits"]) == (["fake/*"], {"requests": "5/minute"})
    for wrong in ({"tenant": "b"}, {"name": None}, {"models": []}, {"limits": {"requests": 5}}):
        assert problem(admin.patch(path, json=wrong), 400)
    assert "no tier nope" in problem(admin.patch(path, json={"tier": "nope"}), 409)
    assert problem(admin.patch("/admin/keys/key_none", json={}), 404)


def test_a_rotated_key_opens_with_both_secrets_during_its_grace(gateway, admin, key_of):
    key = key_of()
    rotated = admin.post(f"/admin/keys/{key['id']}/rotate", params={"grace": "1h"}).json()
    assert rotated["id"] == key["id"]
    assert rotated["old_until"] is not None

    def status(secret):
        with gateway.client(secret) as client:
            return client.get("/v1/models").status_code

    assert [status(key["key"]), status(rotated["key"])] == [200, 200]
    newest = admin.post(f"/admin/keys/{key['id']}/rotate").json()
    assert [status(key["key"]), status(rotated["key"]), status(newest["key"])] == [401, 401, 200]
    assert problem(admin.post(f"/admin/keys/{key['id']}/rotate", params={"grace": "60"}), 400)


def test_a_long_list_of_keys_comes_in_pages(admin, key_of, name):
    made = {key_of(tenant=name)["id"] for _ in range(5)}
    answer = admin.get("/admin/keys", params={"tenant": name, "limit": 2})
    found = answer.json()
    while following := answer.links.get("next"):
        answer = admin.get(following["url"])
        assert len(answer.json()) <= 2
        found += answer.json()
    assert [key["created"] for key in found] == sorted(key["created"] for key in found)
    assert {key["id"] for key in found} == made
    assert len(found) == 5
    assert problem(admin.get("/admin/keys", params={"limit": 1001}), 400)


def test_the_last_owner_is_not_locked_out(launch):
    with launch(admin={"key": None}) as running:
        secret = running.line_with(r"Admin key +(tga-\S+)")[1]
        with running.client(secret) as owner:
            (key,) = owner.get("/admin/keys", params={"role": "owner"}).json()
            assert "last owner" in problem(owner.delete(f"/admin/keys/{key['id']}"), 409)


def test_a_tier_is_made_changed_and_deleted(admin, name):
    path = f"/admin/tiers/{name}"
    tier = {"limits": {"requests": ["10/minute", "50/day"], "concurrency": 2}, "share": "10%"}
    made = admin.put(path, json=tier, headers={"if-none-match": "*"})
    assert made.status_code == 201
    assert made.json()["limits"] == tier["limits"]
    assert (made.json()["source"], made.json()["queue"]) == ("stored", {"max_wait": "60s"})
    first = made.headers["etag"]
    assert admin.get(path).headers["etag"] == first
    patched = admin.patch(path, json={"limits": {"concurrency": None}}, headers={"if-match": first})
    assert patched.json() == {
        **made.json(),
        "limits": {"requests": ["10/minute", "50/day"]},
        "version": patched.json()["version"],
        "changed": patched.json()["changed"],
    }
    assert "now" in problem(admin.patch(path, json={"weight": 2}, headers={"if-match": first}), 412)
    assert problem(admin.put(path, json=tier, headers={"if-none-match": "*"}), 412)
    for answer in (admin.put(path, json={}), admin.patch(path, json={}), admin.delete(path)):
        assert patched.headers["etag"] in problem(answer, 428)
    assert problem(admin.delete(path, headers={"if-match": f"W/{patched.headers['etag']}"}), 412)
    assert name in {each["name"] for each in admin.get("/admin/tiers").json()}
    assert admin.delete(path, headers={"if-match": patched.headers["etag"]}).status_code == 204
    assert problem(admin.get(path), 404)
    assert problem(admin.patch(path, json={}, headers={"if-match": "*"}), 412)
    again = admin.put(path, json=tier)
    assert again.headers["etag"] not in {first, patched.headers["etag"]}
    admin.delete(path, headers={"if-match": "*"})


def test_a_wrong_tier_names_its_faults(admin, name):
    wrong = {"limits": {"requests": "ten", "spend": "5/fortnight"}, "wait": 1}
    answer = admin.put(f"/admin/tiers/{name}", json=wrong)
    problem(answer, 400)
    assert {fault["field"] for fault in answer.json()["errors"]} >= {"body.limits.requests.0", "body.wait"}


def test_of_two_who_change_the_same_state_one_is_told(admin, name):
    path = f"/admin/tiers/{name}"
    tag = admin.put(path, json={}).headers["etag"]

    def change(weight):
        return admin.patch(path, json={"weight": weight}, headers={"if-match": tag}).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(change, range(1, 9))) == [200] + [412] * 7
    admin.delete(path, headers={"if-match": "*"})


def test_the_default_tier_is_always_there(admin):
    shown = admin.get("/admin/tiers/default")
    assert shown.json()["source"] == "built-in"
    assert "built in" in problem(admin.delete("/admin/tiers/default", headers={"if-match": "*"}), 409)
    stored = admin.put(
        "/admin/tiers/default", json={"weight": 3}, headers={"if-match": shown.headers["etag"]}
    )
    assert stored.json()["source"] == "stored"
    assert admin.delete("/admin/tiers/default", headers={"if-match": "*"}).status_code == 204
    assert admin.get("/admin/tiers/default").json() == shown.json()


def test_a_tier_in_use_stays(admin, key_of, name):
    path, tenant = f"/admin/tiers/{name}", f"/admin/tenants/{name}"
    admin.put(path, json={})
    admin.put(tenant, json={"tier": name})
    key = key_of(tenant=name)
    assert key["tier"] == name  # its tenant's
    everywhere = {"if-match": "*"}
    assert "1 key and 1 tenant" in problem(admin.delete(path, headers=everywhere), 409)
    admin.patch(f"/admin/keys/{key['id']}", json={"tier": "default"})
    assert "by 1 tenant" in problem(admin.delete(path, headers=everywhere), 409)
    assert admin.delete(tenant, headers=everywhere).status_code == 204
    assert admin.delete(path, headers=everywhere).status_code == 204
    assert "no tier" in problem(admin.put(tenant, json={"tier": name}), 409)


def test_a_tiers_and_a_tenants_limits_hold_from_their_change_on(gateway, admin, key_of, name):
    tier, tenant = f"/admin/tiers/{name}", f"/admin/tenants/{name}"
    admin.put(tier, json={})
    with gateway.client(key_of(tenant=name, tier=name)["key"]) as client:

        def status():
            return client.post(CHAT, json=chat("ok")).status_code

        assert [status(), status()] == [200, 200]
        admin.patch(tier, json={"limits": {"requests": "2/hour"}}, headers={"if-match": "*"})
        assert [status(), status(), status()] == [200, 200, 429]
        admin.patch(tier, json={"limits": None}, headers={"if-match": "*"})
        assert status() == 200
        admin.put(tenant, json={"limits": {"requests": "1/hour"}})
        assert [status(), status()] == [200, 429]


def test_every_change_is_in_the_audit_with_who_and_what(admin, as_role, key_of, name):
    operator = as_role("operator")
    path = f"/admin/tiers/{name}"
    operator.put(path, json={"weight": 2}, headers={"x-request-id": f"req-{name}"})
    operator.patch(path, json={"weight": 3}, headers={"if-match": "*"})
    operator.delete(path, headers={"if-match": "*"})
    deleted, changed, made = admin.get("/admin/audit", params={"subject": "tier", "name": name}).json()
    assert [each["action"] for each in (made, changed, deleted)] == ["create", "update", "delete"]
    assert (made["actor"]["role"], made["request_id"]) == ("operator", f"req-{name}")
    assert (made["before"], made["after"]) == (None, {"weight": 2.0})
    assert (changed["before"], changed["after"], deleted["after"]) == ({"weight": 2.0}, {"weight": 3.0}, None)
    assert admin.get("/admin/audit", params={"actor": made["actor"]["id"], "limit": 3}).links["next"]
    key = key_of()
    (entry,) = admin.get("/admin/audit", params={"name": key["id"]}).json()
    assert key["key"][8:] not in str(entry)
    assert problem(admin.get("/admin/audit", params={"since": "yesterday"}), 400)


def test_models_show_their_routes(admin):
    shown = {model["name"]: model for model in admin.get("/admin/models").json()}
    assert shown["plain"]["route"] == [["up/fake/ok"]]
    assert shown["fake/*"]["retries"]["attempts"] == 1


def test_the_page_of_the_api_fetches_nothing_from_elsewhere(gateway):
    with gateway.client(key=None) as client:
        page = client.get("/docs").text
        sources = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert len(sources) >= 3
        for source in sources:
            assert "//" not in source
            assert client.get(f"/{source}").status_code == 200


def test_two_replicas_on_one_postgresql_are_one(upstream, postgres_server, tmp_path_factory):
    database = postgres_server.new_database()
    first = replica(upstream, tmp_path_factory.mktemp("first"), database)
    second = replica(upstream, tmp_path_factory.mktemp("second"), database)
    with first as one, second as other, one.admin() as admin:
        key = admin.post("/admin/keys", json={"name": "n", "tenant": "t"}).json()
        with other.client(key["key"]) as client:

            def status():
                return client.post(CHAT, json=chat("ok")).status_code

            eventually(lambda: status() == 200)
            admin.put("/admin/tenants/t", json={"limits": {"requests": "1/day"}})
            eventually(lambda: status() == 429)
            with other.admin() as elsewhere:
                assert elsewhere.get("/admin/audit").json() == admin.get("/admin/audit").json()
            admin.delete(f"/admin/keys/{key['id']}")
            eventually(lambda: status() == 401)
