"""The energy model: what follows from a model's size, what goes before that, and what was published."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.energy import UNIT, Rate, Rates, Spent, TokenEnergy, active_parameters, per_token, watt_hours
from gateway.providers.chunks import read_usage
from gateway.settings import LocalProvider, Provider
from gateway.settings.energy import Energy, EnergyData, energy_data
from policies.service import Usage

WATT_HOUR = 3600
NODE = 8 * energy_data().server.watts * energy_data().server.load
"""Watts of a server with eight accelerators."""

COUNTS = st.integers(0, 10**9)
JOULES = st.floats(0, 1e3)
USAGES = st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS)
RATES = st.builds(TokenEnergy, JOULES, JOULES, JOULES)


def joules(usage, model, **own):
    return Rate(per_token(model, Energy(**own) if own else None)).spent(usage).amount / UNIT


def test_an_answer_of_gpt_4o_takes_what_epoch_says():
    """0.30 Wh for 500 tokens of a model with 100 billion active parameters."""
    assert joules(Usage(output=500), "gpt-4o") / WATT_HOUR == pytest.approx(0.30, abs=0.005)


def test_a_day_of_deepseek_takes_about_what_its_servers_drew():
    """608 billion tokens in, 342 of them out of the cache, and 168 billion out, by 226.75 servers."""
    model = per_token("deepseek-v3", Energy(pue=1))
    day = 266e9 * model.input + 342e9 * model.cached_input + 168e9 * model.output
    assert day / (226.75 * NODE * 86400) == pytest.approx(1.25, abs=0.03)


def test_a_token_of_llama_8b_takes_about_what_was_measured():
    """0.12 J at the GPU alone, 64 answers at once on an H100."""
    assert per_token("llama-3.1-8b-instruct", Energy(pue=1)).output == pytest.approx(0.144, abs=0.001)


@pytest.mark.parametrize(
    ("model", "active"),
    [
        ("meta-llama/Llama-3.1-70B-Instruct", 70),
        ("qwen3-235b-a22b-instruct", 22),
        ("qwen/qwen3-30b-a3b", 3),
        ("llama3.1:8b", 8),
        ("smollm2-135m", 0.135),
        ("gemma-3n-e2b", 100),
        ("openai/gpt-oss-120b", 5.1),
        ("mixtral-8x7b-instruct", 12.9),
        ("deepseek-ai/DeepSeek-V3.1", 37),
        ("deepseek-r1-distill-llama-70b", 70),
        ("gpt-4o", 100),
        ("gpt-5-mini-2026-01-01", 8),
        ("openai/gpt-4.1-nano", 8),
        ("o3-mini", 8),
        ("gemini-2.5-flash", 40),
        ("text-embedding-3-large", 0.5),
        ("model-of-1024-bytes", 100),
        ("", 100),
    ],
)
def test_a_model_s_size_is_listed_or_in_its_name_or_that_of_an_unknown_one(model, active):
    assert active_parameters(model, energy_data()) == active


@given(RATES, USAGES, USAGES)
def test_energy_adds_up_and_never_falls(rate, one, other):
    rate = Rate(rate)
    both = Usage(
        one.input + other.input,
        one.output + other.output,
        min(one.cached_input, one.input) + min(other.cached_input, other.input),
    )
    apart = rate.spent(one).amount + rate.spent(other).amount
    assert abs(rate.spent(both).amount - min(apart, 10**15)) <= 2 + 1e-9 * apart
    assert 0 <= rate.spent(one).amount <= rate.spent(both).amount + 1


@given(COUNTS, COUNTS, COUNTS, st.floats(0.1, 1000))
def test_what_was_cached_takes_less_and_a_larger_model_more(given_in, cached, out, active):
    usage = Usage(given_in, out, min(cached, given_in))
    own = Energy(active=active)
    found = Rate(per_token("m", own)).spent(usage).amount
    assert found <= Rate(per_token("m", own)).spent(Usage(given_in, out)).amount
    assert found <= Rate(per_token("m", Energy(active=2 * active))).spent(usage).amount


@given(USAGES, st.floats(1, 3))
def test_a_data_centre_s_overhead_multiplies_all_of_it(usage, pue):
    bare, whole = (Rate(per_token("llama-8b", Energy(pue=each))).spent(usage).amount for each in (1, pue))
    assert whole == pytest.approx(min(10**15, bare * pue), rel=1e-6, abs=2)


def test_what_an_account_says_goes_before_the_estimate():
    own = per_token("llama-8b", Energy(input=1, output=2, pue=1))
    assert own == TokenEnergy(1, energy_data().server.cached, 2)
    assert per_token("llama-8b", Energy(cached_input=0.5, pue=2)).cached_input == 1
    assert per_token("whatever", Energy(active=8)) == per_token("llama-8b")
    providers = {"a": Provider(preset="vllm", energy={"m*": {"active": 8}, "mm": {"active": 1}})}
    rates = Rates(providers)
    assert rates.of("a", "mm").spent(Usage(output=1000)) == Rate(per_token("x-1b")).spent(Usage(output=1000))
    assert rates.of("a#2", "m1").spent(Usage(10, 10)) == Rate(per_token("x-8b")).spent(Usage(10, 10))
    assert rates.of("gone", "x-8b").spent(Usage(10, 10)) == Rate(per_token("x-8b")).spent(Usage(10, 10))


def test_only_the_bundled_model_s_own_word_is_taken():
    told = Usage(10, 10, joules=2.5, measured=True, flops=1e9)
    rates = Rates({"local": LocalProvider(preset="local"), "remote": Provider(preset="vllm")})
    assert rates.of("local", "m").spent(told) == Spent(2_500_000, True, 1e9)
    remote = rates.of("remote", "x-8b").spent(told)
    assert (remote.measured, remote.flops) == (False, None)
    own = Rates({"own": Provider(preset="vllm", energy={"*": {"told": True}})})
    assert own.of("own", "x-8b").spent(told) == Spent(2_500_000, True, 1e9)
    assert own.of("own", "x-8b").spent(Usage(10, 10)).amount == remote.amount
    assert remote.amount == rates.of("remote", "x-8b").spent(Usage(10, 10)).amount
    silent = rates.of("local", "m").spent(Usage(10, 10))
    assert silent.amount > 0
    assert not silent.measured


def test_what_was_answered_by_nobody_or_not_counted_is_not_known():
    rates = Rates({})
    assert rates.spent(None, None, None) is rates.spent("a", "m", None) is None
    assert rates.spent("a", "m", Usage()) == Spent(0)


@pytest.mark.parametrize(
    ("told", "joules", "measured"),
    [
        ({"joules": 1.5, "source": "rapl"}, 1.5, True),
        ({"joules": 1.5, "source": "nvml"}, 1.5, True),
        ({"joules": 1.5, "source": "estimate"}, 1.5, False),
        ({"joules": -1, "source": "rapl"}, None, False),
        ({"joules": 1e300}, None, False),
        ({"joules": "much"}, None, False),
        ("lots", None, False),
        (None, None, False),
    ],
)
def test_an_upstream_s_word_of_its_energy_is_read_as_it_is_sent(told, joules, measured):
    usage = read_usage({"usage": {"prompt_tokens": 1, "energy": told}})
    assert (usage.joules, usage.measured) == (joules, measured)


@pytest.mark.parametrize("wrong", [{}, {"pue": 0.9}, {"active": 0}, {"input": -1}, {"watts": 3}])
def test_an_entry_that_says_nothing_or_what_cannot_be_is_refused(wrong):
    with pytest.raises(ValidationError):
        Energy(**wrong)


def test_the_data_say_how_old_they_are_and_where_they_are_from():
    data = energy_data()
    assert data.as_of.year >= 2026
    assert all(urlsplit(source).scheme == "https" for source in data.sources.values())
    with pytest.raises(ValidationError, match="no such class"):
        EnergyData.model_validate({**data.model_dump(), "unknown": "enormous"})


@pytest.mark.parametrize(
    ("joules", "shown"),
    [
        (0, "0 mWh"),
        (0.36, "0.1 mWh"),
        (1800, "500 mWh"),
        (3600, "1 Wh"),
        (5.4e6, "1.5 kWh"),
        (3.6e10, "10,000 kWh"),
    ],
)
def test_people_read_watt_hours(joules, shown):
    assert watt_hours(joules) == shown


def test_the_page_s_table_of_classes_is_that_of_the_data():
    page = (Path(__file__).parents[2] / "docs/energy.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) billion \| (\S+) \| (\S+) \| (\S+) \|$", page, re.MULTILINE)
    assert {name: float(active) for name, active, *_ in rows} == energy_data().classes
    for _, active, *told in rows:
        found = per_token("m", Energy(active=float(active)))
        assert [float(joules) for joules in told] == [pytest.approx(joules, rel=0.05) for joules in found]
