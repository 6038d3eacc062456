from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cache.codec import Corrupt, Kept, decode, encode
from policies.cache.answer import CachedAnswer
from policies.service import Usage

KEY = sha256(b"a call").hexdigest()


def kept(body=b'{"choices": []}', usage=None):
    return Kept(CachedAnswer(KEY, "=acme", "m", "up", "m-1", 1e9, body, usage), 2e9)


@given(body=st.binary(max_size=2000))
def test_what_is_written_is_read(body):
    for usage in (None, Usage(input=3, output=2, cached_input=1)):
        answer = kept(body, usage)
        assert decode(encode(answer), KEY) == answer


DATA = encode(kept(b"tide " * 500, Usage(1, 2)))


@given(at=st.integers(0, len(DATA) - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(at, bit):
    damaged = bytearray(DATA)
    damaged[at] ^= 1 << bit
    with pytest.raises(Corrupt):
        decode(bytes(damaged), KEY)


@given(length=st.integers(0, len(DATA) - 1))
def test_any_cut_is_found(length):
    with pytest.raises(Corrupt):
        decode(DATA[:length], KEY)


@given(noise=st.binary(max_size=200))
def test_noise_is_no_answer(noise):
    with pytest.raises(Corrupt):
        decode(noise, KEY)


def test_an_answer_under_another_key_is_not_that_keys():
    with pytest.raises(Corrupt):
        decode(DATA, sha256(b"another").hexdigest())


def test_text_is_compressed():
    assert len(DATA) < 500
