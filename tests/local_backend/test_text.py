import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local_backend.engine.request import Token
from local_backend.serve.text import TextStream
from local_backend.serve.tokenizer import ChatTemplateError, Tokenizer
from local_backend.weights.prepare import ModelFolder

RELAXED = settings(
    max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

# The vocabulary has no tokens for control characters and for the first byte of the planes beyond.
WRITABLE = st.characters(max_codepoint=0x3FFFF, exclude_categories=["Cs", "Cc"]) | st.just("\n")


@pytest.fixture(scope="module")
def tokenizer(bundled: ModelFolder) -> Tokenizer:
    return Tokenizer(bundled.path)


def play(tokenizer: Tokenizer, text: str, stop: list[str]) -> tuple[list[str], int, bool]:
    """The pieces sent, how many tokens came with them, and whether a stop string ended it."""
    stream = TextStream(tokenizer, stop)
    pieces = []
    for token in tokenizer.encode(text):
        pieces.append(stream.push(Token(token)))
        if stream.stopped:
            break
    else:
        pieces.append(stream.flush())
    return [piece.text for piece in pieces], sum(len(piece.tokens) for piece in pieces), stream.stopped


@RELAXED
@given(st.text(alphabet=WRITABLE, max_size=60))
def test_any_text_comes_back_whole_without_broken_characters(tokenizer: Tokenizer, text: str) -> None:
    pieces, tokens, stopped = play(tokenizer, text, [])
    assert "".join(pieces) == text
    assert tokens == len(tokenizer.encode(text))
    assert not stopped


def test_characters_of_several_tokens_are_held_until_they_are_whole(tokenizer: Tokenizer) -> None:
    text = "🦜 ñandú 漢字 👩‍👩‍👧"
    assert len(tokenizer.encode("🦜")) > 1
    pieces, _, _ = play(tokenizer, text, [])
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_sequence_cut_inside_a_character_ends_with_a_replacement(tokenizer: Tokenizer) -> None:
    stream = TextStream(tokenizer, [])
    assert stream.push(Token(tokenizer.encode("🦜")[0])).text == ""
    left = stream.flush()
    assert left.text == "\ufffd"
    assert len(left.tokens) == 1


@RELAXED
@given(
    st.text(alphabet="ab \n", max_size=40),
    st.lists(st.text(alphabet="ab \n", min_size=1, max_size=4), max_size=3),
)
def test_nothing_of_a_stop_string_is_sent_and_nothing_before_it_is_lost(
    tokenizer: Tokenizer, text: str, stop: list[str]
) -> None:
    pieces, _, stopped = play(tokenizer, text, stop)
    found = [text.find(each) for each in stop if each in text]
    # A stop string that is complete earlier wins over one that begins earlier but is not complete yet.
    ends = [text.find(each) + len(each) for each in stop if each in text]
    sent = "".join(pieces)
    assert stopped == bool(found)
    if not found:
        assert sent == text
        return
    assert text.startswith(sent)
    assert not any(each in sent for each in stop)
    assert min(found) <= len(sent) <= min(ends)


def test_a_stop_string_over_several_tokens(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("STOP HERE")) > 1
    pieces, tokens, stopped = play(tokenizer, "go on STOP HERE now", ["STOP HERE"])
    assert "".join(pieces) == "go on "
    assert stopped
    assert tokens <= len(tokenizer.encode("go on STOP"))


def test_held_back_text_comes_out_when_it_is_no_stop_string(tokenizer: Tokenizer) -> None:
    pieces, _, stopped = play(tokenizer, "a\n\nb", ["\n\n\n"])
    assert "".join(pieces) == "a\n\nb"
    assert not stopped


def test_the_chat_template_adds_the_models_system_prompt(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_chat([{"role": "user", "content": "Hi"}])
    spelled = b"".join(tokenizer.spelling(token) for token in ids).decode()
    assert spelled.startswith("system\nYou are a helpful AI assistant")
    assert spelled.endswith("assistant\n")
    with pytest.raises(ChatTemplateError):
        tokenizer.encode_chat([{"role": "user", "content": None}])
