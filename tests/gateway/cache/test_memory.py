from hashlib import sha256
from random import Random

import pytest

from gateway.cache.codec import Kept
from gateway.cache.memory import byte_cache, size_of
from policies.cache.answer import CachedAnswer

POLICIES = ["w-tinylfu", "lru", "lfu"]
KIB = 1024


def key(number):
    return sha256(str(number).encode()).hexdigest()


def answer(number, size=KIB):
    return Kept(CachedAnswer(key(number), "=t", "m", "up", "m", 0.0, bytes(max(0, size - 600))), 1.0)


@pytest.fixture(params=POLICIES)
def policy(request):
    return request.param


def filled(policy, capacity, numbers, size=KIB):
    evicted = []
    cache = byte_cache(policy, capacity, evicted.append)
    for number in numbers:
        kept = answer(number, size)
        cache.set(key(number), kept, size_of(kept))
    return cache, evicted


def test_it_keeps_what_fits(policy):
    cache, evicted = filled(policy, 100 * KIB, range(100))
    assert (len(cache), cache.bytes, evicted) == (100, 100 * KIB, [])
    assert all(cache.get(key(number)) == answer(number) for number in range(100))
    assert cache.get(key(100)) is None


def test_it_is_bounded_by_bytes_whatever_the_sizes(policy):
    rng = Random(3)
    evicted = []
    cache = byte_cache(policy, 200 * KIB, evicted.append)
    held = {}
    for number in range(3000):
        size = rng.choice([700, KIB, 5 * KIB, 40 * KIB, 150 * KIB, 300 * KIB])
        kept = answer(number % 500, size)
        held[number % 500] = kept
        cache.set(key(number % 500), kept, size_of(kept))
        assert cache.bytes <= 200 * KIB
    found = [number for number in held if cache.get(key(number)) is not None]
    assert len(found) == len(cache) > 0
    assert all(cache.get(key(number)) == held[number] for number in found)
    assert sum(size_of(held[number]) for number in found) <= 200 * KIB
    assert sum(evicted) > 2000


def test_a_new_value_takes_the_place_of_the_old(policy):
    cache, _ = filled(policy, 100 * KIB, [1])
    bigger = answer(1, 30 * KIB)
    cache.set(key(1), bigger, size_of(bigger))
    assert (cache.get(key(1)), len(cache)) == (bigger, 1)
    assert cache.bytes <= 31 * KIB


def test_what_is_larger_than_all_the_room_is_not_kept(policy):
    cache, evicted = filled(policy, 10 * KIB, [1], size=11 * KIB)
    assert (len(cache), cache.bytes, evicted) == (0, 0, [1])


def test_forgetting_one_and_all(policy):
    cache, evicted = filled(policy, 100 * KIB, range(10), size=3 * KIB)
    assert cache.pop(key(3)) is True
    assert cache.pop(key(3)) is False
    assert (len(cache), cache.bytes, cache.get(key(3))) == (9, 27 * KIB, None)
    cache.clear()
    assert (len(cache), cache.bytes, evicted) == (0, 0, [])


def test_what_is_asked_for_often_outlives_a_scan():
    """The reason for W-TinyLFU: a thousand answers that nobody wants twice, against ten that are wanted."""
    hits = {}
    for policy in POLICIES:
        cache, _ = filled(policy, 100 * KIB, range(10))
        for _ in range(20):
            for number in range(10):
                cache.get(key(number))
        for number in range(1000, 2000):
            kept = answer(number)
            cache.set(key(number), kept, size_of(kept))
        hits[policy] = sum(cache.get(key(number)) is not None for number in range(10))
    assert hits["lru"] == 0
    assert hits["w-tinylfu"] == 10
