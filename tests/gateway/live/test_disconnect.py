"""A client that leaves takes its upstream call along, at once, whatever it was waiting for."""

import json
import socket
import struct
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from tests.kit import answers
from tests.kit.chat import CHAT, chat, comments_of, messages_of, new_id, text_of
from tests.kit.processes import CLIENT_KEY, PATIENCE, eventually


def head(identity, length):
    lines = [f"POST {CHAT} HTTP/1.1", "host: x", f"authorization: Bearer {CLIENT_KEY}"]
    lines += [f"x-request-id: {identity}", f"content-length: {length}", "", ""]
    return "\r\n".join(lines).encode()


@contextmanager
def asked(gateway, body, identity):
    """A connection on which a request was sent."""
    parts = urlsplit(gateway.url)
    content = json.dumps(body).encode()
    with socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE) as raw:
        raw.sendall(head(identity, len(content)) + content)
        yield raw


def fin(raw):
    raw.shutdown(socket.SHUT_RDWR)


def rst(raw):
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()


def read_until(raw, text):
    seen = b""
    while text not in seen:
        piece = raw.recv(65536)
        assert piece, seen
        seen += piece
    return seen


def assert_cancelled(gateway, upstream, identity):
    assert upstream.ended(identity)["end"] == "disconnected"
    lines = eventually(lambda: [line for line in gateway.access_log() if line["request_id"] == identity])
    (line,) = lines
    assert line["outcome"] == "cancelled"
    assert line["attempts"][0]["outcome"] == "cancelled"
    return line


@pytest.mark.parametrize("leave", [fin, rst])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["silence", "ok:comments=3600", "ok:first=3600"])
def test_leaving_while_the_first_token_is_awaited(gateway, upstream, model, stream, leave):
    identity = new_id()
    with asked(gateway, chat(model, stream=stream), identity) as raw:
        upstream.reached(identity)
        leave(raw)
        line = assert_cancelled(gateway, upstream, identity)
    assert line["status"] in {499, 200}


@pytest.mark.parametrize("leave", [fin, rst])
@pytest.mark.parametrize("model", ["stall:at=3", "stall:at=3,comments=1", "ok:tokens=100000,gap=0.01"])
def test_leaving_in_the_middle_of_a_stream(gateway, upstream, model, leave):
    identity = new_id()
    with asked(gateway, chat(model, stream=True), identity) as raw:
        read_until(raw, answers.PIECES[2].encode())
        leave(raw)
        line = assert_cancelled(gateway, upstream, identity)
    assert line["status"] == 200


def test_leaving_after_comments(gateway, upstream):
    identity = new_id()
    with asked(gateway, chat("silence", stream=True), identity) as raw:
        read_until(raw, b": waiting")
        fin(raw)
        assert_cancelled(gateway, upstream, identity)


def test_leaving_before_the_body_is_whole_opens_no_call(gateway, upstream):
    identity = new_id()
    parts = urlsplit(gateway.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE) as raw:
        raw.sendall(head(identity, 999) + b'{"model"')
        fin(raw)
    (line,) = eventually(lambda: [line for line in gateway.access_log() if line["request_id"] == identity])
    assert (line["status"], line["outcome"]) == (499, "cancelled")
    assert not upstream.seen(identity)


def test_a_client_that_reads_slowly_holds_the_upstream_back_and_gets_everything(gateway, upstream):
    """Nothing piles up in the gateway: the upstream can't send on while the client doesn't read."""
    identity = new_id()
    count = 70_000
    with asked(gateway, chat(f"ok:tokens={count}", stream=True), identity) as raw:
        seen = bytearray(read_until(raw, b"data: "))
        written = []

        def held_back():
            written.append(upstream.seen(identity)[0]["written"])
            return len(written) > 100 and len(set(written[-100:])) == 1

        eventually(held_back)
        assert upstream.seen(identity)[0]["end"] is None
        while not seen.endswith(b"0\r\n\r\n"):
            seen += raw.recv(1 << 20)
    assert upstream.ended(identity)["end"] == "answered"
    body = dechunked(bytes(seen).partition(b"\r\n\r\n")[2]).decode()
    *chunks, done = messages_of(body)
    assert done == "[DONE]"
    assert len(comments_of(body)) < 5  # nine or more were due while it read nothing
    assert text_of(chunks) == answers.text(count)


def dechunked(data):
    parts, at = [], 0
    while True:
        end = data.index(b"\r\n", at)
        size = int(data[at:end], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(data[end + 2 : end + 2 + size])
        at = end + 2 + size + 2


def test_a_client_that_does_not_read_and_leaves_is_noticed(gateway, upstream):
    identity = new_id()
    with asked(gateway, chat("ok:tokens=200000", stream=True), identity) as raw:
        read_until(raw, b"data: ")
        rst(raw)
        assert_cancelled(gateway, upstream, identity)


def test_the_gateway_counts_no_call_that_is_over(gateway):
    def inflight():
        with gateway.client(None) as client:
            lines = client.get("/metrics").text.splitlines()
        return [line for line in lines if line.startswith("tidegate_inflight_requests{")]

    eventually(lambda: all(line.endswith(" 0.0") for line in inflight()))
