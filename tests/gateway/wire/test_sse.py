from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.sse import DONE, EventDecoder, message

LINES = st.one_of(
    st.just(b""),
    st.sampled_from([b": keep-alive", b"event: x", b"id: 1", b"retry: 3", b"data", b"datax: no"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12).map(
        lambda text: b"data: " + text.encode()
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12).map(
        lambda text: b"data:" + text.encode()
    ),
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def streams():
    return st.lists(st.tuples(LINES, ENDS), max_size=20).map(lambda lines: b"".join(a + b for a, b in lines))


def read(pieces):
    decoder = EventDecoder()
    found = [data for piece in pieces for data in decoder.feed(piece)]
    return found + decoder.flush()


def by_the_book(stream):
    """WHATWG's algorithm line by line, but for a last message that no blank line ends."""
    found, data = [], []
    for line in [*stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"), b""]:
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            found.append(b"\n".join(data))
            data = []
    return found


@given(streams())
def test_a_stream_is_read_by_the_book(stream):
    assert read([stream]) == by_the_book(stream)


@given(streams(), st.lists(st.integers(min_value=0, max_value=400), max_size=12))
def test_any_cut_of_any_stream_gives_the_same_messages(stream, cuts):
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(edges)]
    assert read(pieces) == read([stream])


@given(st.lists(st.binary(max_size=30).filter(lambda data: b"\r" not in data), max_size=8))
def test_what_is_written_is_read_again(messages):
    assert read([b"".join(message(data) for data in messages)]) == messages


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_message_is_out_as_soon_as_it_is_whole(end):
    decoder = EventDecoder()
    first = decoder.feed(b"data: a" + end + end)
    # After a lone CR only the next byte tells whether it was half of a CRLF.
    assert first == [b"a"] or (end == b"\r" and decoder.feed(b"d") == [b"a"])


def test_comments_blank_lines_and_other_fields_are_no_messages():
    assert read([b": keep-alive\n\n\n\n\nevent: ping\nid: 7\n\ndata: [DONE]\n\n"]) == [DONE]


def test_a_message_of_several_lines_and_one_without_an_end():
    assert read([b"data: a\ndata:\ndata: b\n\ndata: c"]) == [b"a\n\nb", b"c"]


def test_a_character_cut_in_half_stays_whole():
    wave = "🌊".encode()
    assert read([b"data: " + wave[:1], wave[1:3], wave[3:] + b"\n\n"]) == [wave]
