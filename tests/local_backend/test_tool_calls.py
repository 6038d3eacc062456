import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from local_backend.serve.tool_calls import ToolCallParser
from local_backend.serve.tools import spell_head, spell_tail

VALUES = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
CALLS = st.lists(
    st.tuples(st.sampled_from(["a", "bc", "d_e"]), st.dictionaries(st.text(), VALUES)), max_size=3
)


def read(pieces: list[str]) -> tuple[str, list[tuple[str, str]]]:
    """The text and the calls that the pieces come to."""
    parser = ToolCallParser()
    text, names, arguments = "", [], []
    for delta in [*map(parser.push, pieces), parser.flush()]:
        text += delta.text
        for call in delta.calls:
            if "id" in call:
                assert call["index"] == len(names)
                names.append(call["function"]["name"])
                arguments.append("")
            arguments[call["index"]] += call["function"]["arguments"]
    return text, list(zip(names, arguments, strict=True))


@settings(max_examples=200)
@given(st.text(alphabet="<tol_ca>{ "), CALLS, st.lists(st.integers(1, 20)))
@example("<tool_call>", [("a", {})], [])
@example('<tool_call>{"name": "a", <tool_call', [("bc", {})], [3, 20, 18, 2])
def test_calls_are_found_however_they_are_cut(
    text: str, calls: list[tuple[str, dict[str, object]]], cuts: list[int]
) -> None:
    written = [(name, json.dumps(arguments)) for name, arguments in calls]
    rest = text + "".join(spell_head(name) + arguments + spell_tail() for name, arguments in written)
    pieces = []
    for size in cuts:
        pieces.append(rest[:size])
        rest = rest[size:]
    assert read([*pieces, rest]) == (text, written)


def test_text_is_held_no_longer_than_it_could_be_a_call() -> None:
    parser = ToolCallParser()
    assert parser.push("a <tool_").text == "a "
    assert parser.push("box>").text == "<tool_box>"
    assert parser.push('<tool_call>{"name": ').text == ""
    assert parser.flush().text == '<tool_call>{"name": '


def test_a_call_that_is_cut_before_its_name_is_no_text() -> None:
    for written in ("<tool_call>", '<tool_call>{"name": "get_w'):
        parser = ToolCallParser()
        assert parser.push("Let me see. " + written).text == "Let me see. "
        assert parser.flush(is_cut=True).text == ""


def test_what_was_written_of_arguments_is_given() -> None:
    assert read(['<tool_call>{"name": "a", "arguments": {"x": "}']) == ("", [("a", '{"x": "}')])
