import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from policies.cache.key import UNKEYED, fingerprint, scope_of
from policies.service import Operation
from tests.kit.caching import ask

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.text(min_size=1, max_size=12).filter(lambda name: name not in UNKEYED)

CHAT = {
    "model": "m",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
    "temperature": 0,
}

KEYED = [
    {"model": "m2"},
    {"messages": [{"role": "user", "content": "hi"}]},
    {"messages": [{"role": "system", "content": "Be brief. "}, {"role": "user", "content": "hi"}]},
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hi", "name": "x"},
        ]
    },
    {"messages": [{"role": "user", "content": "hi"}, {"role": "system", "content": "Be brief."}]},
    {"temperature": 0.1},
    {"temperature": 0, "seed": 1},
    {"seed": 2},
    {"seed": None},
    {"top_p": 0.9},
    {"top_k": 5},
    {"min_p": 0.1},
    {"n": 1},
    {"n": 2},
    {"stop": "x"},
    {"stop": ["x"]},
    {"max_tokens": 5},
    {"max_completion_tokens": 5},
    {"presence_penalty": 0.5},
    {"frequency_penalty": 0.5},
    {"repetition_penalty": 1.1},
    {"logit_bias": {"5": -100}},
    {"logprobs": True},
    {"top_logprobs": 2},
    {"tools": [{"type": "function", "function": {"name": "f"}}]},
    {"tool_choice": "none"},
    {"parallel_tool_calls": False},
    {"functions": [{"name": "f"}]},
    {"function_call": "auto"},
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}},
    {"reasoning_effort": "low"},
    {"thinking": {"type": "enabled"}},
    {"verbosity": "low"},
    {"modalities": ["text", "audio"]},
    {"audio": {"voice": "alloy", "format": "wav"}},
    {"prediction": {"type": "content", "content": "x"}},
    {"web_search_options": {}},
    {"service_tier": "flex"},
    {"provider": {"order": ["a", "b"]}},
    {"guided_json": {}},
    {"unheard_of": {"deep": [1, 2.5, None]}},
]
"""Each is one change to CHAT that may change what is answered."""


def key(body, *, tenant="acme", operation=Operation.CHAT, space="", shared=False):
    call = ask(tenant=tenant, operation=operation)
    call.body = body
    return fingerprint(call, scope=scope_of(call, shared=shared), space=space)


def test_each_keyed_field_changed_alone_is_another_call():
    keys = [key({**CHAT, **change}) for change in KEYED]
    assert len({key(CHAT), *keys}) == len(KEYED) + 1


@pytest.mark.parametrize("name", sorted(UNKEYED))
@pytest.mark.parametrize("value", [None, True, "x", {"include_usage": True}])
def test_what_does_not_change_the_answer_is_the_same_call(name, value):
    assert key({**CHAT, name: value}) == key(CHAT)


def test_tenant_operation_and_route_are_keyed():
    keys = [
        key(CHAT),
        key(CHAT, tenant="other"),
        key(CHAT, tenant="*"),
        key(CHAT, shared=True),
        key(CHAT, operation=Operation.COMPLETION),
        key(CHAT, space="elsewhere"),
    ]
    assert len(set(keys)) == len(keys)
    assert key(CHAT, shared=True) == key(CHAT, tenant="other", shared=True)


def test_the_order_of_fields_does_not_matter():
    assert key(dict(reversed(CHAT.items()))) == key(CHAT)


@given(name=NAMES, value=JSON)
def test_any_field_of_any_name_is_keyed(name, value):
    assume(CHAT.get(name, "absent") != value)
    assert key({**CHAT, name: value}) != key(CHAT)


@given(name=NAMES, one=JSON, other=JSON)
def test_two_values_are_two_calls_and_one_value_is_one(name, one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (key({**CHAT, name: one}) == key({**CHAT, name: other})) is same


@given(one=st.text(), other=st.text())
def test_any_two_tenants_are_apart(one, other):
    assert (key(CHAT, tenant=one) == key(CHAT, tenant=other)) is (one == other)
