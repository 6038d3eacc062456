import hmac

import pytest

from gateway import keyring as module
from gateway.keyring import Keyring
from gateway.settings import DeclaredKey
from gateway.stores.database import open_database
from gateway.stores.keys import KeyStore, Role
from gateway.stores.migration import migrate
from policies.errors import AuthenticationFailed, PermissionDenied

NOW = 1000.0
DECLARED = DeclaredKey(name="ci", key="ci-secret", tenant="acme", tier="pro", models=("gpt-*", "chat"))


@pytest.fixture
async def store(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path}/keys.db")
    await migrate(engine)
    yield KeyStore(engine, lambda: NOW)
    await engine.dispose()


@pytest.fixture
def ring(store):
    ring = Keyring(store)
    ring.declare([DECLARED], "owner-secret")
    return ring


def test_a_declared_key_is_known_with_its_tenant_and_tier(ring):
    key = ring.identify("ci-secret", NOW)
    assert (key.id, key.tenant, key.tier, key.role) == ("declared:ci", "acme", "pro", Role.CLIENT)


@pytest.mark.parametrize("secret", ["wrong", "ci-secret ", "CI-SECRET", "\u00e9\u2603", DECLARED.sha256])
def test_any_other_secret_is_refused(ring, secret):
    with pytest.raises(AuthenticationFailed) as caught:
        ring.identify(secret, NOW)
    assert secret not in caught.value.message


@pytest.mark.parametrize("secret", [None, ""])
def test_no_secret_has_a_code_of_its_own(ring, secret):
    with pytest.raises(AuthenticationFailed) as caught:
        ring.identify(secret, NOW)
    assert caught.value.code == "missing_api_key"


def test_secrets_are_looked_up_by_digest_and_compared_in_constant_time(ring, monkeypatch):
    compared = []
    constant_time = hmac.compare_digest

    def compare(one, other):
        compared.append((one, other))
        return constant_time(one, other)

    monkeypatch.setattr(module.hmac, "compare_digest", compare)
    ring.identify("ci-secret", NOW)
    assert compared == [(DECLARED.sha256, DECLARED.sha256)]
    assert "ci-secret" not in repr(vars(ring))


def test_an_owners_key_opens_only_the_admin_api_and_a_clients_only_v1(ring):
    assert ring.identify("owner-secret", NOW, Role.OWNER).role is Role.OWNER
    with pytest.raises(PermissionDenied):
        ring.identify("owner-secret", NOW)
    with pytest.raises(PermissionDenied):
        ring.identify("ci-secret", NOW, Role.OWNER)


@pytest.mark.parametrize(
    ("role", "opens"),
    [
        (Role.CLIENT, {Role.CLIENT}),
        (Role.VIEWER, {Role.VIEWER}),
        (Role.OPERATOR, {Role.VIEWER, Role.OPERATOR}),
        (Role.OWNER, {Role.VIEWER, Role.OPERATOR, Role.OWNER}),
    ],
)
def test_a_role_opens_what_lesser_ones_do_and_only_a_clients_opens_v1(role, opens):
    assert {needed for needed in Role if role.covers(needed)} == opens


async def test_a_refusal_names_the_role_that_is_needed(ring, store):
    _, secret = await store.create(name="reader", tenant="", role=Role.VIEWER)
    await ring.refresh()
    with pytest.raises(PermissionDenied, match="role operator; this one has the role viewer"):
        ring.identify(secret, NOW, Role.OPERATOR)


def test_models_are_names_and_globs(ring):
    key = ring.identify("ci-secret", NOW)
    assert [ring.allows(key, model) for model in ["gpt-5", "chat", "chat2", "other"]] == [
        True,
        True,
        False,
        False,
    ]
    assert ring.allows(ring.identify("owner-secret", NOW, Role.OWNER), "anything")


async def test_a_stored_key_is_seen_after_a_refresh_and_gone_after_the_next(ring, store):
    key, secret = await store.create(name="new", tenant="t")
    with pytest.raises(AuthenticationFailed):
        ring.identify(secret, NOW)
    await ring.refresh()
    assert ring.identify(secret, NOW) == key
    await store.delete(key.id)
    await ring.refresh()
    with pytest.raises(AuthenticationFailed):
        ring.identify(secret, NOW)


async def test_a_key_ends_at_its_time(ring, store):
    _, secret = await store.create(name="short", tenant="t", expires=NOW + 5)
    await ring.refresh()
    assert ring.identify(secret, NOW + 4.9)
    with pytest.raises(AuthenticationFailed, match="expired"):
        ring.identify(secret, NOW + 5)


async def test_a_secret_that_was_rotated_away_opens_until_its_time(ring, store):
    key, old = await store.create(name="n", tenant="t")
    _, new = await store.rotate(key.id, grace=5)
    await ring.refresh()
    assert ring.identify(new, NOW + 99).id == ring.identify(old, NOW + 4.9).id == key.id
    with pytest.raises(AuthenticationFailed, match="expired"):
        ring.identify(old, NOW + 5)
    _, newest = await store.rotate(key.id)
    await ring.refresh()
    assert ring.identify(newest, NOW)
    for gone in (old, new):
        with pytest.raises(AuthenticationFailed):
            ring.identify(gone, NOW)


async def test_a_rotated_secret_opens_no_longer_than_its_key(ring, store):
    key, old = await store.create(name="n", tenant="t", expires=NOW + 3)
    await store.rotate(key.id, grace=60)
    await ring.refresh()
    with pytest.raises(AuthenticationFailed, match="expired"):
        ring.identify(old, NOW + 3)


async def test_declaring_anew_replaces_declared_keys_and_keeps_stored_ones(ring, store):
    _, secret = await store.create(name="stored", tenant="t")
    await ring.refresh()
    ring.declare([], None)
    assert ring.identify(secret, NOW)
    for gone in ["ci-secret", "owner-secret"]:
        with pytest.raises(AuthenticationFailed):
            ring.identify(gone, NOW)


async def test_a_stored_key_comes_back_when_the_file_declares_it_no_more(ring, store):
    key, secret = await store.create(name="stored", tenant="t")
    await ring.refresh()
    ring.declare([DeclaredKey(name="same", key=secret, tenant="declared")], None)
    assert ring.identify(secret, NOW).tenant == "declared"
    ring.declare([], None)
    assert ring.identify(secret, NOW) == key
