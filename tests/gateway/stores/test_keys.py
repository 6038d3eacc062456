import asyncio
import sqlite3
from dataclasses import replace

import pytest
import sqlalchemy as sa

from gateway.settings import Limits
from gateway.stores.database import metadata, open_database
from gateway.stores.keys import KeyStore, LastOwner, Role, digest_of
from gateway.stores.migration import migrate
from gateway.stores.revisions import current

NOW = 1000.0


@pytest.fixture
def store(engines):
    return KeyStore(engines[0], lambda: NOW)


@pytest.fixture
def other(engines):
    return KeyStore(engines[1], lambda: NOW)


async def test_a_key_comes_back_as_it_was_made(store):
    key, secret = await store.create(
        name="n", tenant="t", tier="pro", models=("gpt-*", "chat"), expires=NOW + 60
    )
    assert await store.get(key.id) == key
    assert await store.list() == [key]
    assert (key.role, key.created, key.expires, key.models) == (Role.CLIENT, NOW, NOW + 60, ("gpt-*", "chat"))
    assert key.digest == digest_of(secret)
    assert secret.startswith("tg-")
    assert secret.startswith(key.hint)


async def contents(engine):
    """Everything that the database holds, as text."""
    async with engine.connect() as connection:
        return str([list(await connection.execute(sa.select(table))) for table in metadata.sorted_tables])


async def test_a_secret_is_kept_nowhere_and_its_digest_only_with_the_key(store, engines):
    key, secret = await store.create(name="n", tenant="t")
    _, owner = await store.create(name="o", tenant="", role=Role.OWNER)
    assert owner.startswith("tga-")
    _, rotated = await store.rotate(key.id, 60)
    await store.update(key.id, {"tier": "pro"})
    kept = await contents(engines[1])
    assert digest_of(secret) in kept
    for each in (secret, owner, rotated):
        assert each[8:] not in kept
    await store.delete(key.id)
    assert digest_of(secret) not in await contents(engines[1])


async def test_no_two_secrets_or_ids_are_alike(store):
    made = [await store.create(name="n", tenant="t") for _ in range(20)]
    assert len({secret for _, secret in made}) == len({key.id for key, _ in made}) == 20


async def test_keys_are_listed_by_tenant(store):
    mine, _ = await store.create(name="a", tenant="mine")
    await store.create(name="b", tenant="yours")
    assert await store.list(tenant="mine") == [mine]
    assert await store.list(tenant="nobody") == []


async def test_deleting(store):
    key, _ = await store.create(name="n", tenant="t")
    assert await store.delete(key.id) is True
    assert await store.delete(key.id) is False
    assert await store.get(key.id) is None


async def test_of_the_last_two_owners_that_delete_each_other_at_once_one_stays(store, other):
    for _ in range(5):
        first, _ = await store.create(name="a", tenant="", role=Role.OWNER)
        second, _ = await store.create(name="b", tenant="", role=Role.OWNER)
        results = await asyncio.gather(
            store.delete(first.id, keep_owner=True),
            other.delete(second.id, keep_owner=True),
            return_exceptions=True,
        )
        assert sorted(map(repr, results)) == ["LastOwner()", "True"]
        (left,) = await store.list()
        assert await store.delete(left.id) is True


async def test_an_owner_whose_key_has_expired_is_no_other_owner(store):
    await store.create(name="gone", tenant="", role=Role.OWNER, expires=NOW)
    last, _ = await store.create(name="last", tenant="", role=Role.OWNER)
    client, _ = await store.create(name="n", tenant="t")
    with pytest.raises(LastOwner):
        await store.delete(last.id, keep_owner=True)
    assert await store.get(last.id) == last
    assert await store.delete(client.id, keep_owner=True) is True
    await store.create(name="later", tenant="", role=Role.OWNER, expires=NOW + 1)
    assert await store.delete(last.id, keep_owner=True) is True


async def revision(engines):
    return (await current(engines[1]))["keys"]


async def test_another_engine_sees_each_change_and_that_there_was_one(store, other, engines):
    before = await revision(engines)
    key, _ = await store.create(name="n", tenant="t")
    made = await revision(engines)
    assert await other.list() == [key]
    await store.delete(key.id)
    gone = await revision(engines)
    assert await other.list() == []
    assert before < made < gone


async def test_both_may_write(store, other):
    for _ in range(5):
        await store.create(name="a", tenant="t")
        await other.create(name="b", tenant="t")
    assert len(await store.list()) == 10


async def test_migrating_again_changes_nothing(store, engines):
    key, _ = await store.create(name="n", tenant="t")
    await migrate(engines[1])
    assert await store.list() == [key]


async def test_fields_change_and_the_rest_stays(store):
    key, _ = await store.create(name="n", tenant="t", limits=Limits(requests="5/minute"))
    changed = await store.update(key.id, {"tier": "pro", "expires": NOW + 9})
    assert changed == replace(key, tier="pro", expires=NOW + 9) == await store.get(key.id)
    assert (await store.update(key.id, {"limits": None})).limits is None
    assert await store.update("key_none", {"tier": "pro"}) is None


async def test_a_rotated_key_has_another_secret_and_the_old_one_for_as_long_as_was_said(store):
    key, secret = await store.create(name="n", tenant="t")
    fresh, other = await store.rotate(key.id, grace=60)
    assert (fresh.id, fresh.digest, fresh.hint) == (key.id, digest_of(other), other[:7])
    assert (fresh.old_digest, fresh.old_until) == (digest_of(secret), NOW + 60)
    at_once, _ = await store.rotate(key.id)
    assert (at_once.old_digest, at_once.old_until) == (None, None)
    assert await store.rotate("key_none") is None


async def test_pages_follow_each_other_and_hold_every_key_once(store):
    made = [(await store.create(name="n", tenant="t"))[0] for _ in range(5)]
    found, after = [], None
    while page := await store.page(tenant="t", role=None, after=after, limit=2):
        assert len(page) <= 2
        found += page
        after = (page[-1].created, page[-1].id)
    assert found == sorted(made, key=lambda key: key.id)
    assert await store.page(tenant="t", role=Role.OWNER, after=None, limit=2) == []


async def test_writers_of_several_processes_take_turns_and_lose_nothing(store, other, engines):
    key, _ = await store.create(name="n", tenant="t")
    before = await revision(engines)
    await asyncio.gather(
        *(
            one.update(key.id, {field: str(n)})
            for n in range(10)
            for one, field in [(store, "name"), (other, "tier")]
        )
    )
    kept = await store.get(key.id)
    assert {kept.name, kept.tier} < {str(n) for n in range(10)}
    assert await revision(engines) == before + 20


async def test_a_writer_waits_for_another_instead_of_failing(tmp_path):
    file = tmp_path / "keys.db"
    engine = open_database(f"sqlite:///{file}")
    await migrate(engine)
    store = KeyStore(engine, lambda: NOW)
    blocker = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    blocker.execute("BEGIN IMMEDIATE")
    making = asyncio.create_task(store.create(name="n", tenant="t"))
    done, _ = await asyncio.wait((making,), timeout=0.3)
    assert not done
    assert await store.list() == []  # readers go on
    blocker.execute("COMMIT")
    blocker.close()
    await making
    assert len(await store.list()) == 1
    await engine.dispose()
