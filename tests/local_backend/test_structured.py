"""Random logits under a grammar: whatever is drawn has the form that was asked for."""

import json
import re
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local_backend.engine.request import SamplingParams
from local_backend.engine.sampler import Sampler
from local_backend.engine.structured import Grammar, GrammarCompiler, GrammarError, Unparseable
from local_backend.serve import forms
from local_backend.serve.tokenizer import Tokenizer
from local_backend.serve.tool_calls import ToolCallParser
from local_backend.weights.prepare import ModelFolder

VOCABULARY, END = 49152, 2
RELAXED = settings(
    max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"enum": ["Oslo", "Rome"]}, "people": {"type": "integer", "maximum": 99}},
    "required": ["name", "people"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer(bundled: ModelFolder) -> Tokenizer:
    return Tokenizer(bundled.path)


@pytest.fixture(scope="module")
def grammars(bundled: ModelFolder) -> GrammarCompiler:
    return GrammarCompiler(bundled.path / "tokenizer.json", VOCABULARY, [END])


def write(tokenizer: Tokenizer, grammar: Grammar, seed: int, longest: int = 300) -> str:
    """What a model that knows nothing writes, its end token being likely."""
    generator = torch.Generator().manual_seed(seed)
    sampler = Sampler(SamplingParams(longest, seed=seed, grammar=grammar), (), VOCABULARY)
    text = b""
    for _ in range(longest):
        logits = torch.randn(VOCABULARY, generator=generator)
        logits[END] += 9
        token = sampler.sample(logits).id
        if token == END:
            return text.decode()
        text += tokenizer.spelling(token)
        if sampler.is_complete:
            return text.decode()
    raise AssertionError(f"no end: {text!r}")


@RELAXED
@given(st.integers(0, 10**6))
def test_json_fits_its_schema(tokenizer: Tokenizer, grammars: GrammarCompiler, seed: int) -> None:
    city = json.loads(write(tokenizer, grammars.compile(forms.json_schema(CITY)), seed))
    assert city.keys() == {"name", "people"}
    assert city["name"] in {"Oslo", "Rome"}
    assert city["people"] <= 99


@RELAXED
@given(st.integers(0, 10**6))
def test_text_matches_its_expression(tokenizer: Tokenizer, grammars: GrammarCompiler, seed: int) -> None:
    pattern = r"[a-c]{2,5}-(19|20)[0-9]{2}"
    assert re.fullmatch(pattern, write(tokenizer, grammars.compile(forms.regex(pattern)), seed))


@RELAXED
@given(st.integers(0, 10**6), st.booleans())
def test_required_calls_are_calls(
    tokenizer: Tokenizer, grammars: GrammarCompiler, seed: int, parallel: bool
) -> None:
    nothing: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
    grammar = forms.tool_calls({"city": CITY, "now": nothing}, required=True, parallel=parallel)
    parser = ToolCallParser()
    delta = parser.push(write(tokenizer, grammars.compile(grammar), seed, 2000))
    assert not delta.text
    assert not parser.flush().text
    names = [call["function"]["name"] for call in delta.calls if "id" in call]
    assert names
    assert set(names) <= {"city", "now"}
    assert parallel or len(names) == 1


@pytest.mark.parametrize("parallel", [True, False])
def test_calls_may_follow_free_text(tokenizer: Tokenizer, grammars: GrammarCompiler, parallel: bool) -> None:
    grammar = grammars.compile(forms.tool_calls({"city": CITY}, required=False, parallel=parallel))
    call = '<tool_call>{"name": "city", "arguments": {"name": "Oslo", "people": 7}}</tool_call>'

    def fits(text: str) -> bool:
        place = grammar.begin()
        try:
            for token in tokenizer.encode(text):
                place.accept(token)
        except Unparseable:
            return False
        return True

    assert fits("Oslo < Rome, a <tool")
    assert fits("Let me look. " + call)
    assert fits(call + call) == parallel
    assert not fits('Let me look. <tool_call>{"name": "country"')


@pytest.mark.parametrize(
    "grammar", [forms.regex("a("), forms.json_schema({"type": "objct"}), forms.json_schema({"not": {}})]
)
def test_what_is_no_grammar_is_refused(grammars: GrammarCompiler, grammar: str) -> None:
    with pytest.raises(GrammarError):
        grammars.compile(grammar)


def test_a_beginning_must_fit(tokenizer: Tokenizer, grammars: GrammarCompiler) -> None:
    grammar = forms.json_schema(CITY)
    rest = write(tokenizer, grammars.compile(grammar, tokenizer.encode('{"name": "Os')), 1)
    assert rest.startswith('lo"')
    with pytest.raises(GrammarError):
        grammars.compile(grammar, tokenizer.encode("Oslo"))
