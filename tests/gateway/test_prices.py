from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.prices import UNIT, Tariff, Tariffs, price_of
from gateway.settings import LocalProvider, Provider, presets
from gateway.settings.prices import Price
from policies.service import Usage

NOON = datetime(2026, 11, 17, 12, tzinfo=UTC).timestamp()  # a Tuesday
PEAK = datetime(2026, 11, 17, 2, tzinfo=UTC).timestamp()
SUNDAY = datetime(2026, 11, 22, 2, tzinfo=UTC).timestamp()


def test_each_kind_of_token_has_its_price():
    tariff = Tariff(Price(input=2, cached_input=0.5, output=8, reasoning=16))
    usage = Usage(input=1000, output=100, cached_input=400, reasoning=25)
    dollars = (600 * 2 + 400 * 0.5 + 75 * 8 + 25 * 16) / 1e6
    assert tariff.cost(usage, NOON) == round(dollars * UNIT)


def test_what_is_not_told_costs_as_much_as_its_kind():
    plain = Tariff(Price(input=2, output=8))
    assert plain.cost(Usage(10, 10, cached_input=5, reasoning=5), NOON) == plain.cost(Usage(10, 10), NOON)


def test_an_unknown_price_is_no_cost_and_not_nothing():
    tariffs = Tariffs({"a": Provider(preset="vllm"), "local": LocalProvider(preset="local")})
    assert tariffs.of("a", "m").cost(Usage(10, 10), NOON) is None
    assert tariffs.of("gone", "m").cost(Usage(10, 10), NOON) is None
    assert tariffs.of("local", "m").cost(Usage(10, 10), NOON) == 0


def test_an_account_s_own_price_goes_before_the_list_and_a_name_before_a_glob():
    own = {"gpt-*": Price(input=1, output=1), "gpt-5": Price(input=3, output=3)}
    provider = Provider(preset="openai", api_key="k", prices=own)
    assert price_of(provider, "gpt-5") == own["gpt-5"]
    assert price_of(provider, "gpt-4o") == own["gpt-*"]
    assert price_of(Provider(preset="openai", api_key="k"), "gpt-4o").input == 2.5
    assert price_of(Provider(preset="openai", api_key="k"), "no-such-model") is None


def test_every_account_of_a_provider_has_its_prices():
    tariffs = Tariffs({"two": Provider(preset="openai", api_keys=("a", "b"))})
    assert tariffs.of("two#2", "gpt-4o").cost(Usage(1_000_000, 0), NOON) == 2.5 * UNIT


def test_deepseek_is_half_the_price_off_peak():
    tariff = Tariffs({"d": Provider(preset="deepseek", api_key="k")}).of("d", "deepseek-v4-pro")
    million = Usage(input=1_000_000)
    assert tariff.cost(million, PEAK) == 1.32 * UNIT
    assert tariff.cost(million, NOON) == tariff.cost(million, SUNDAY) == 0.66 * UNIT
    assert tariff.per_token(PEAK) == pytest.approx((1.32e-6, 3.96e-6))


def test_a_provider_that_tells_the_cost_is_believed_and_others_are_not():
    usage = Usage(10, 10, cost=0.00125)
    providers = {"or": Provider(preset="openrouter", api_key="k"), "v": Provider(preset="vllm")}
    tariffs = Tariffs(providers)
    assert tariffs.of("or", "any/model").cost(usage, NOON) == 0.00125 * UNIT
    assert tariffs.of("or", "any/model").cost(Usage(10, 10), NOON) is None
    assert tariffs.of("v", "m").cost(usage, NOON) is None


COUNTS = st.integers(0, 10**7)


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_no_usage_costs_less_than_nothing_or_more_than_its_dearest_tokens(given_in, out, cached, reasoning):
    tariff = Tariff(Price(input=2, cached_input=0.5, output=8, reasoning=16))
    cost = tariff.cost(Usage(given_in, out, cached_input=cached, reasoning=reasoning), NOON)
    assert 0 <= cost <= (given_in * 2 + out * 16) * UNIT / 1e6 + 1


def test_list_prices_say_how_old_they_are():
    for preset in presets().values():
        if preset.prices is not None:
            assert preset.prices.source.startswith("https://")
            assert preset.prices.as_of.year >= 2026
