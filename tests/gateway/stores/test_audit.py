import pytest

from gateway.settings import Limits
from gateway.stores.audit import Audit, Author, Subject, Wanted
from gateway.stores.keys import KeyStore
from gateway.stores.orders import Action, OrderBook

NOW = 1000.0
ANNA = Author("key_a", "anna", "owner", "req_1")
BEN = Author("key_b", "ben", "operator", "req_2")


@pytest.fixture
def audit(engines):
    return Audit(engines[0], lambda: NOW)


@pytest.fixture
def keys(engines):
    return KeyStore(engines[0], lambda: NOW)


async def test_each_write_tells_who_what_before_and_after(audit, keys):
    limits = Limits(requests="5/minute")
    key, _ = await keys.create(name="n", tenant="t", limits=limits, by=ANNA)
    await keys.update(key.id, {"tier": "pro", "limits": None}, by=BEN)
    await keys.rotate(key.id, 60, by=BEN)
    await keys.delete(key.id, by=ANNA)
    entries = (await audit.read(Wanted(), 10))[::-1]
    assert [(entry.action, entry.author) for entry in entries] == [
        ("create", ANNA),
        ("update", BEN),
        ("rotate", BEN),
        ("delete", ANNA),
    ]
    assert {(entry.at, entry.subject, entry.name) for entry in entries} == {(NOW, Subject.KEY, key.id)}
    created, changed = entries[:2]
    assert (created.before, created.after) == (None, key.told())
    assert created.after["limits"] == {"requests": "5/minute"}
    assert (changed.before, changed.after) == (key.told(), {**key.told(), "tier": "pro", "limits": None})
    assert entries[3].after is None


async def test_an_order_and_what_is_in_no_database_are_told_too(audit, engines):
    await OrderBook(engines[0], lambda: NOW).give("up/m", Action.DRAIN, by=BEN)
    await audit.write(ANNA, "reload", Subject.CONFIGURATION)
    reload, drain = await audit.read(Wanted(), 10)
    assert (drain.action, drain.subject, drain.name, drain.author) == ("drain", Subject.UPSTREAM, "up/m", BEN)
    assert (reload.action, reload.subject, reload.author) == ("reload", Subject.CONFIGURATION, ANNA)


async def test_a_write_that_fails_leaves_no_entry_and_an_entry_that_fails_no_write(audit, keys, monkeypatch):
    async def fail(*_, **__):
        raise RuntimeError

    monkeypatch.setattr("gateway.stores.keys.record", fail)
    with pytest.raises(RuntimeError):
        await keys.create(name="n", tenant="t")
    assert await keys.list() == []
    assert await audit.read(Wanted(), 10) == []


async def test_nothing_is_told_of_a_write_to_a_key_that_is_not_there(audit, keys):
    assert await keys.delete("key_none") is False
    assert await keys.update("key_none", {"tier": "pro"}) is None
    assert await audit.read(Wanted(), 10) == []


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (Wanted(subject=Subject.KEY), 3),
        (Wanted(subject=Subject.TIER), 0),
        (Wanted(actor_id="key_b"), 1),
        (Wanted(action="create"), 2),
        (Wanted(since=NOW, until=NOW + 1), 4),
        (Wanted(since=NOW + 1), 0),
        (Wanted(until=NOW), 0),
        (Wanted(name="up"), 1),
    ],
)
async def test_entries_by_what_they_are_about(audit, keys, engines, wanted, count):
    key, _ = await keys.create(name="n", tenant="t", by=ANNA)
    await keys.create(name="m", tenant="t", by=ANNA)
    await keys.delete(key.id, by=BEN)
    await OrderBook(engines[0], lambda: NOW).give("up", Action.DRAIN, by=ANNA)
    assert len(await audit.read(wanted, 10)) == count


async def test_pages_go_back_in_time(audit, keys):
    for _ in range(5):
        await keys.create(name="n", tenant="t")
    found, below = [], None
    while page := await audit.read(Wanted(below=below), 2):
        found += [entry.number for entry in page]
        below = page[-1].number
    assert found == sorted(set(found), reverse=True)
    assert len(found) == 5
