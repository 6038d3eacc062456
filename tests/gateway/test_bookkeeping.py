import pytest

from gateway.bookkeeping import Bookkeeping, Ended
from gateway.energy import UNIT, Rates, Spent
from gateway.prices import Tariffs
from gateway.settings import LocalProvider, Provider
from gateway.settings.energy import Energy
from gateway.settings.prices import Price
from gateway.stores.keys import Key
from gateway.stores.ledger import EXTRA
from policies.errors import UpstreamTimeout
from policies.facts import CacheRefreshed
from policies.service import (
    CANCELLED,
    LOST,
    OK,
    PENDING,
    Attempt,
    CacheState,
    CacheStatus,
    Operation,
    Reply,
    Usage,
)  # fmt: skip
from tests.kit.upstream import make_call

KEY = Key(id="key_1", name="n", digest="", tenant="acme", tier="pro")
USAGE = Usage(input=100, output=10)
COST = 100 * 2000 + 10 * 8000
"""In billionths of a dollar."""


class Noted:
    def __init__(self):
        self.entries = []

    def note(self, entry):
        self.entries.append(entry)


@pytest.fixture
def noted():
    return Noted()


@pytest.fixture
def books(noted):
    provider = Provider(
        preset="vllm", prices={"*": Price(input=2, output=8)}, energy={"*": Energy(input=1, output=4, pue=1)}
    )
    providers = {
        "bills": provider,
        "stops": provider,
        "fast": provider,
        "local": LocalProvider(preset="local"),
    }
    return Bookkeeping(
        noted,
        Tariffs(providers),
        Rates(providers),
        estimate=lambda _: Usage(50, 500),
        bills_cancelled={"bills"}.__contains__,
        wall_time=lambda: 1000.0,
    )


def ended(attempts, reply=None, **facts):
    call = make_call(attempts=attempts, tenant="acme", tier="pro", route="m*", model="m1")
    known = {"failure": None, "characters": 0, "first_event": 0.5 if reply else None} | facts
    return Ended(
        "req", KEY, Operation.CHAT, 200, known.pop("outcome", OK), 1.0,
        known["first_event"], call, reply, known["failure"], known["characters"],
    )  # fmt: skip


def attempt(upstream, outcome, first_event=None):
    return Attempt(upstream, "m", outcome, 1.0, first_event)


def test_an_answer_is_one_entry_at_its_price(books, noted):
    reply = Reply("fast", "m", usage=USAGE)
    books.enter(ended([attempt("fast", OK, 0.5)], reply))
    (entry,) = noted.entries
    assert (entry.input, entry.output, entry.cost, entry.estimated) == (100, 10, COST, False)
    assert (entry.upstream, entry.served_model, entry.model, entry.route) == ("fast", "m", "m1", "m*")
    assert books.cost(reply) == COST


def test_failed_attempts_cost_nothing(books, noted):
    attempts = [
        attempt("bills", "UpstreamTimeout"),
        attempt("bills", "UpstreamBusy"),
        attempt("fast", OK, 0.1),
    ]
    books.enter(ended(attempts, Reply("fast", "m", usage=USAGE)))
    assert [(entry.upstream, entry.cost) for entry in noted.entries] == [("fast", COST)]


@pytest.mark.parametrize(("loser", "extras"), [("bills", 1), ("stops", 0)])
def test_a_hedge_s_loser_is_an_entry_of_its_own_where_it_is_billed(books, noted, loser, extras):
    attempts = [attempt(loser, LOST), attempt("fast", OK, 0.1)]
    books.enter(ended(attempts, Reply("fast", "m", usage=USAGE)))
    found = [entry for entry in noted.entries if entry.kind == EXTRA]
    assert len(found) == extras == len(noted.entries) - 1
    for entry in found:
        assert (entry.upstream, entry.outcome, entry.requests) == (loser, LOST, 0)
        assert (entry.input, entry.cost, entry.estimated) == (100, COST, True)


def test_of_two_racing_attempts_that_their_client_leaves_the_last_is_the_request_s(books, noted):
    attempts = [attempt("bills", CANCELLED), attempt("stops", CANCELLED)]
    books.enter(ended(attempts, outcome=CANCELLED))
    found = {entry.upstream: (entry.kind, entry.input, entry.cost) for entry in noted.entries}
    assert found == {"stops": ("answer", 50, 0), "bills": (EXTRA, 50, 50 * 2000)}


def test_what_the_cache_had_costs_nothing_and_is_no_upstream_s(books, noted):
    reply = Reply("fast", "m", cached=CacheStatus(CacheState.HIT, saved=USAGE))
    books.enter(ended([], reply))
    (entry,) = noted.entries
    assert (entry.cache_hit, entry.upstream, entry.served_model) == (True, "", "m")
    assert (entry.input, entry.cost) == (0, 0)
    assert books.cost(reply) == 0


def refreshed(attempts, reply, outcome=OK):
    call = make_call(attempts=attempts, tenant="acme", tier="pro", key="key_1", route="m*", model="m1")
    return CacheRefreshed(call, outcome, reply)


def test_what_the_cache_fetches_anew_is_an_extra_of_who_caused_it(books, noted):
    attempts = [attempt("fast", "UpstreamBusy"), attempt("fast", OK, 0.1)]
    books.enter_errand(refreshed(attempts, Reply("fast", "m", usage=USAGE)))
    (entry,) = noted.entries
    assert (entry.kind, entry.requests, entry.cost, entry.estimated) == (EXTRA, 0, COST, False)
    assert (entry.tenant, entry.key_id, entry.tier, entry.model) == ("acme", "key_1", "pro", "m1")
    assert (entry.upstream, entry.served_model, entry.outcome) == ("fast", "m", OK)


def test_what_the_gateway_ends_before_its_first_token_costs_its_prompt(books, noted):
    books.enter_errand(refreshed([attempt("bills", CANCELLED)], None, CANCELLED))
    (entry,) = noted.entries
    assert (entry.kind, entry.input, entry.cost, entry.estimated) == (EXTRA, 50, 50 * 2000, True)


@pytest.mark.parametrize(
    ("attempts", "reply"),
    [
        ([attempt("fast", "UpstreamBusy")], None),
        ([], Reply("fast", "m", cached=CacheStatus(CacheState.HIT, tier="flight", saved=USAGE))),
    ],
)
def test_a_refresh_that_failed_or_that_shares_another_call_s_answer_is_no_entry(
    books, noted, attempts, reply
):
    books.enter_errand(refreshed(attempts, reply))
    assert noted.entries == []


def test_attempts_that_go_on_for_another_call_are_entered_with_that_one(books, noted):
    """Its client left, before the first token and in mid-stream, and others who share the answer stayed."""
    lost = attempt("bills", LOST)
    books.enter(ended([lost, attempt("fast", PENDING)], outcome=CANCELLED))
    served = CacheStatus(CacheState.HIT, tier="flight", saved=None)
    books.enter(ended([lost, attempt("fast", PENDING, 0.1)], Reply("fast", "m", cached=served)))
    assert [(entry.kind, entry.input, entry.cost) for entry in noted.entries] == [("answer", 0, 0)] * 2
    books.enter(ended([lost, attempt("fast", OK, 0.1)], Reply("fast", "m", usage=USAGE)))
    assert [(entry.kind, entry.input) for entry in noted.entries[2:]] == [(EXTRA, 100), ("answer", 100)]


def test_no_count_of_an_upstream_s_is_more_than_a_database_takes(books, noted):
    wild = Usage(input=10**300, output=5, cached_input=10**301, reasoning=10**9)
    books.enter(ended([attempt("fast", OK)], Reply("fast", "m\0" + "x" * 5000, usage=wild)))
    (entry,) = noted.entries
    assert entry.reasoning <= entry.output < entry.cached_input <= entry.input < 2**53
    assert entry.cost < 2**63
    assert len(entry.served_model) <= 200
    assert "\0" not in entry.served_model


ENERGY = 100 * UNIT + 10 * 4 * UNIT


def test_an_answer_s_energy_is_that_of_its_tokens(books, noted):
    reply = Reply("fast", "m", usage=USAGE)
    books.enter(ended([attempt("fast", OK, 0.5)], reply))
    (entry,) = noted.entries
    assert (entry.energy, entry.measured, entry.energy_wasted, entry.flops) == (ENERGY, False, 0, None)
    assert books.energy(reply) == Spent(ENERGY)


def test_what_the_bundled_model_tells_is_taken_as_it_is(books, noted):
    usage = Usage(100, 10, joules=2.5, measured=True, flops=1e9)
    books.enter(ended([attempt("local", OK, 0.5)], Reply("local", "m", usage=usage)))
    (entry,) = noted.entries
    assert (entry.energy, entry.measured, entry.flops) == (2_500_000, True, 1e9)


def test_what_the_cache_had_takes_no_energy(books, noted):
    reply = Reply("fast", "m", cached=CacheStatus(CacheState.HIT, saved=USAGE))
    books.enter(ended([attempt("fast", "UpstreamTimeout")], reply))
    (entry,) = noted.entries
    assert (entry.energy, entry.energy_wasted, books.energy(reply)) == (0, 0, Spent())


@pytest.mark.parametrize(
    ("outcome", "first_event", "worked"),
    [
        ("UpstreamTimeout", None, True),
        ("StreamInterrupted", 0.2, True),
        (LOST, None, True),
        (CANCELLED, None, True),
        ("UpstreamBusy", None, False),
        ("UpstreamUnavailable", None, False),
    ],
)
def test_an_attempt_without_an_answer_took_its_prompt_s_energy_if_it_was_begun(
    books, noted, outcome, first_event, worked
):
    attempts = [attempt("stops", outcome, first_event), attempt("fast", OK, 0.1)]
    books.enter(ended(attempts, Reply("fast", "m", usage=USAGE)))
    (entry,) = [entry for entry in noted.entries if entry.kind != EXTRA]
    extras = [entry for entry in noted.entries if entry.kind == EXTRA]
    wasted = 100 * UNIT if worked and not extras else 0
    assert [(entry.energy, entry.wasted) for entry in extras] == [(ENERGY, ())] * len(extras)
    assert (entry.energy, entry.energy_wasted) == (ENERGY + wasted, wasted)
    assert [each.upstream for each in entry.wasted] == ["stops"] * bool(wasted)


def test_a_request_that_nobody_answered_has_the_energy_of_those_who_tried(books, noted):
    attempts = [attempt("stops", "UpstreamTimeout"), attempt("fast", "UpstreamTimeout")]
    books.enter(ended(attempts, failure=UpstreamTimeout("slow"), outcome="UpstreamTimeout"))
    (entry,) = noted.entries
    assert (entry.upstream, entry.input, entry.cost) == ("", 0, 0)
    assert (entry.energy, entry.energy_wasted) == (2 * 50 * UNIT, 2 * 50 * UNIT)


def test_who_leaves_before_the_first_token_took_the_prompt_s_energy_though_nobody_bills_it(books, noted):
    books.enter(ended([attempt("stops", CANCELLED)], outcome=CANCELLED))
    (entry,) = noted.entries
    assert (entry.cost, entry.energy, entry.energy_wasted) == (0, 50 * UNIT, 0)


def test_energy_is_within_what_a_database_takes(books, noted):
    wild = Usage(input=10**300, output=10**300, joules=1e8)
    for upstream in ("fast", "local"):
        books.enter(ended([attempt(upstream, OK)], Reply(upstream, "m", usage=wild)))
    assert max(entry.energy for entry in noted.entries) <= 10**15
