import asyncio
import sqlite3

import pytest

from gateway.stores.database import migrate, open_database
from gateway.stores.keys import KeyStore, Role, digest_of

NOW = 1000.0


@pytest.fixture
def file(tmp_path):
    return tmp_path / "keys.db"


@pytest.fixture
async def engines(file):
    """Two engines on one database, as two workers have them."""
    opened = [open_database(f"sqlite:///{file}") for _ in range(2)]
    await migrate(opened[0])
    yield opened
    for engine in opened:
        await engine.dispose()


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


async def test_the_secret_is_kept_nowhere(store, file, engines):
    _, secret = await store.create(name="n", tenant="t")
    _, owner = await store.create(name="o", tenant="", role=Role.OWNER)
    assert owner.startswith("tga-")
    for engine in engines:
        await engine.dispose()
    kept = b"".join(part.read_bytes() for part in file.parent.iterdir())
    assert digest_of(secret).encode() in kept
    assert secret[8:].encode() not in kept
    assert owner[8:].encode() not in kept


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


async def test_another_engine_sees_each_change_and_that_there_was_one(store, other):
    before = await other.revision()
    key, _ = await store.create(name="n", tenant="t")
    made = await other.revision()
    assert await other.list() == [key]
    await store.delete(key.id)
    gone = await other.revision()
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


async def test_a_writer_waits_for_another_instead_of_failing(store, file):
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
