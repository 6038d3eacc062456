import gc
import random
from datetime import UTC, datetime

import httpx
import pytest

from gateway.parts import Parts
from gateway.providers.accounts import accounts_of
from gateway.settings import LocalProvider, Provider
from gateway.stores.orders import Action, Order
from gateway.upstreams import Upstreams
from gateway.upstreams.terms import price_of, schedule_of
from policies.health import HealthState
from tests.kit.upstream import RecordingMeter
from tests.kit.virtual_time import LoopClock

URL = "http://upstream.test/v1"


@pytest.fixture
async def upstreams():
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"data": []}))
    return Upstreams(Parts(LoopClock(), lambda: 0.0, random.Random(1), RecordingMeter(), transport))


def provider(**facts):
    return Provider(preset="openai", base_url=URL, **facts)


def get(upstreams, settings, name="up", model="m", account=0, **facts):
    account = accounts_of({name: settings}, {name: URL})[name][account]
    return upstreams.get(settings, account, model, passed_on=False, **facts)


async def test_routes_to_one_upstream_share_it(upstreams):
    settings = provider()
    assert get(upstreams, settings) is get(upstreams, settings)
    assert get(upstreams, settings) is not get(upstreams, settings, model="other")


async def test_what_was_learnt_outlives_a_reload_while_the_settings_stay(upstreams):
    first = get(upstreams, provider(weight=2))
    assert get(upstreams, provider(weight=2)) is first
    assert get(upstreams, provider(weight=3)) is not first


async def test_each_key_is_an_account_of_its_own(upstreams):
    settings = provider(api_keys=["k1", "k2"])
    one, two = (get(upstreams, settings, account=number) for number in (0, 1))
    assert (one.account.name, two.account.name) == ("up#1", "up#2")
    assert one.permits is not two.permits


async def test_accounts_of_one_quota_share_their_permits_by_model(upstreams):
    settings = provider(api_keys=["k1", "k2"], quota="team-a")
    one, two = (get(upstreams, settings, account=number) for number in (0, 1))
    elsewhere = get(upstreams, provider(quota="team-a"), name="elsewhere")
    another_model = get(upstreams, settings, model="other")
    assert one.permits is two.permits is elsewhere.permits
    assert another_model.permits is not one.permits
    assert one.health is not two.health


async def test_a_known_limit_is_where_it_begins(upstreams):
    assert get(upstreams, provider(max_concurrency=64)).permits.limit.limit == 64
    assert get(upstreams, provider(), name="other").permits.limit.limit == 8


async def test_an_upstream_that_nothing_leads_to_is_forgotten(upstreams):
    kept, gone = get(upstreams, provider()), get(upstreams, provider(), model="gone")
    del gone
    gc.collect()
    assert [upstream.model for upstream in upstreams] == [kept.model]


@pytest.mark.parametrize("name", ["up", "up#1", "up#1/m"])
async def test_orders_reach_an_upstream_by_any_of_its_names(upstreams, name):
    settings = provider(api_keys=["k1", "k2"])
    one = get(upstreams, settings, account=0)
    assert upstreams.knows(name)
    upstreams.obey(Order(1, name, Action.DRAIN))
    assert one.health.state(0.0) is HealthState.DRAINING
    upstreams.obey(Order(2, name, Action.RESUME))
    assert one.health.state(0.0) is HealthState.CLOSED
    assert not upstreams.knows("nobody")


async def test_a_drain_holds_for_upstreams_that_come_later(upstreams):
    upstreams.obey(Order(1, "up", Action.DRAIN))
    assert get(upstreams, provider()).report(0.0).state == "draining"
    upstreams.obey(Order(2, "up", Action.RESUME))
    assert get(upstreams, provider(), model="later").report(0.0).state == "closed"


def test_the_price_is_the_listed_one_and_the_bundled_model_costs_least():
    listed = price_of(Provider(preset="openai", api_key="k"), "gpt-4o-mini")
    assert listed == pytest.approx(0.75)
    assert price_of(provider(), "unheard-of") == 1
    assert price_of(LocalProvider(preset="local"), "smollm2-135m-moe") < listed


def test_a_window_of_the_schedule_stands_for_the_accounts_own_terms():
    night = {"zone": "Asia/Shanghai", "windows": [{"from": "22:00", "to": "08:00", "weight": 6}]}
    schedule = schedule_of(provider(weight=2, max_concurrency=10, schedule=night))
    at_night = schedule.at(datetime(2026, 1, 1, 16, tzinfo=UTC).timestamp())  # midnight in Shanghai
    by_day = schedule.at(datetime(2026, 1, 1, 4, tzinfo=UTC).timestamp())
    assert (at_night.weight, at_night.max_concurrency) == (3, 10)
    assert (by_day.weight, by_day.max_concurrency) == (1, 10)
    assert schedule_of(provider()) is None
