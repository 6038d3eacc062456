import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.cache.semantic_prompt import prompt_of
from policies.service import Operation
from tests.kit.caching import ask

FIELDS = st.sampled_from(["temperature", "max_tokens", "seed", "stop", "top_p", "unheard_of"])


def prompt(text="hi", *, before=(), scope="=acme", space="s", operation=Operation.CHAT, **fields):
    messages = [*before, {"role": "user", "content": text}]
    return prompt_of(ask(messages=messages, operation=operation, **fields), scope=scope, space=space)


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20))
def test_only_the_last_turns_text_leaves_the_scope_as_it_is(one, other):
    first, second = prompt(f"a{one}"), prompt(f"a{other}")
    assert (first.text, second.text) == (f"a{one}", f"a{other}")
    assert first.scope == second.scope


@given(FIELDS, st.integers(2, 99))
def test_any_other_field_changes_the_scope(name, value):
    assert prompt(**{name: value}).scope != prompt().scope


def test_tenant_place_and_conversation_change_the_scope():
    earlier = [{"role": "system", "content": "Be brief."}]
    scopes = {
        prompt().scope,
        prompt(scope="=other").scope,
        prompt(space="elsewhere").scope,
        prompt(before=earlier).scope,
        prompt(model="n").scope,
    }
    assert len(scopes) == 5
    assert prompt(stream=True).scope == prompt(user="u").scope == prompt().scope


def test_parts_of_text_are_text():
    assert prompt([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]).text == "a\nb"


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function"}]},
        {"functions": [{}]},
        {"response_format": {"type": "json_object"}},
        {"n": 2},
        {"logprobs": True},
        {"modalities": ["text", "audio"]},
        {"text": [{"type": "image_url", "image_url": {"url": "data:"}}]},
        {"text": " "},
        {"text": "x" * 2001},
        {"before": [{"role": "tool", "content": "4"}]},
        {"before": [{"role": "assistant", "content": None, "tool_calls": [{}]}]},
        {"operation": Operation.COMPLETION},
    ],
)
def test_what_words_do_not_tell_takes_no_part(fields):
    assert prompt(**fields) is None
