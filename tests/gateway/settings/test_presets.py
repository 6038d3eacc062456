from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from pydantic import ValidationError

from gateway.providers.accounts import accounts_of
from gateway.settings import LocalProvider, Preset, Provider, presets
from gateway.upstreams.terms import context_window_of

ROOT = Path(__file__).parents[3]
SERVICES = """
    anthropic azure cloudflare deepseek gemini groq huggingface mistral nvidia openai openrouter qwen together
"""
SERVERS = "jan llama.cpp lm-studio local mlx ollama openvino sglang tensorrt-llm tgi vllm"
NAMES = {*SERVICES.split(), *SERVERS.split()}


def table():
    rows = [
        "| preset | address | key | serves | continues an answer |",
        "|---|---|---|---|---|",
    ]
    for name, preset in presets().items():
        address = f"`{preset.base_url}`" if preset.base_url else "yours to give"
        key = f"`{preset.key_env}`" if preset.key_env else "none asked for"
        if name == "local":
            address = "started by the gateway"
        serves = ", ".join(
            each for each in ("chat", "completions", "embeddings") if each in preset.operations
        )
        continues = "yes" if preset.prefill is not None else ""
        rows.append(f"| [{name}]({preset.docs}) | {address} | {key} | {serves} | {continues} |")
    return "\n".join(rows)


def test_all_are_there():
    assert set(presets()) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_address_is_a_url(name):
    preset = presets()[name]
    addresses = [preset.docs, preset.base_url, preset.prefill and preset.prefill.base_url]
    addresses.append(preset.prices and preset.prices.source)
    for address in filter(None, addresses):
        parts = urlsplit(address)
        assert parts.scheme in {"http", "https"}
        assert parts.hostname
        assert not parts.query
        assert not address.endswith("/") or address == preset.docs


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_preset_says_enough_to_be_used(name):
    preset = presets()[name]
    assert (preset.auth == "none") == (preset.key_env is None)
    if preset.base_url and preset.base_url.startswith("http:"):
        assert urlsplit(preset.base_url).hostname == "127.0.0.1"
    if name not in {"azure", "cloudflare", "local"}:
        assert Provider(preset=name, api_key="k").url == preset.base_url
    for price in preset.prices.models.values() if preset.prices else ():
        assert price.cached_input is None or price.cached_input <= price.input <= price.output


def test_no_two_answers_to_a_repeated_key():
    text = (ROOT / "gateway/providers/presets.yaml").read_text()
    assert set(yaml.safe_load(text)) == NAMES  # and the loader refuses a key that is given twice


def test_facts_that_matter():
    assert presets()["azure"].auth == "api-key"
    assert presets()["deepseek"].keep_alive.max_wait == 600
    assert presets()["mistral"].rename == {"max_completion_tokens": "max_tokens"}
    assert presets()["mistral"].stream_usage is False
    assert presets()["vllm"].prefill.body == {"continue_final_message": True, "add_generation_prompt": False}


def test_a_cancelled_stream_is_billed_unless_somebody_says_otherwise():
    assert not presets()["deepseek"].bills_cancelled
    assert presets()["nvidia"].bills_cancelled
    providers = {
        "a": Provider(preset="openai", api_key="k"),
        "b": Provider(preset="openai", api_key="k", bills_cancelled=True),
        "c": Provider(preset="groq", api_key="k"),
        "d": Provider(preset="groq", api_key="k", bills_cancelled=False),
    }
    accounts = accounts_of(providers, {})
    assert [accounts[name][0].bills_cancelled for name in "abcd"] == [False, True, True, False]


def test_a_models_window_is_the_accounts_then_the_presets():
    own = Provider(preset="openai", api_key="k", context_windows={"gpt-4o": "64k", "gpt-*": 8192})
    listed = Provider(preset="openai", api_key="k")
    names = ["gpt-4o", "gpt-4.1", "other"]
    assert [context_window_of(own, name) for name in names] == [64_000, 8192, None]
    assert [context_window_of(listed, name) for name in names] == [128_000, 1_047_576, None]
    assert context_window_of(Provider(preset="deepseek", api_key="k"), "deepseek-flash") == 1_000_000
    assert context_window_of(LocalProvider(preset="local"), "smollm2-135m-moe") is None


def test_an_unknown_member_is_refused():
    with pytest.raises(ValidationError):
        Preset(docs="https://x.example", operations=["chat"], stream_usage=True, strem=1)


def test_the_documented_table_is_the_data():
    assert table() in (ROOT / "docs/providers.md").read_text(), f"docs/providers.md should have:\n{table()}"
