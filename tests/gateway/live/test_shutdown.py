"""Stopping: SIGTERM lets streams finish, nothing is cut silently, and nothing is left behind."""

import signal
import threading

import httpx
import pytest

from tests.kit import answers
from tests.kit.chat import CHAT, chat, error_of, messages_of, new_id, text_of
from tests.kit.processes import alive, descendants, eventually


class Streaming(threading.Thread):
    """A client that reads one stream to its end, in a thread of its own."""

    def __init__(self, gateway, upstream, body):
        super().__init__()
        self._gateway = gateway
        self._body = body
        self.identity = new_id()
        self.text = ""
        self.failure = None
        self.start()
        upstream.reached(self.identity)

    def run(self):
        try:
            identity = {"x-request-id": self.identity}
            with (
                self._gateway.client() as client,
                client.stream("POST", CHAT, json=self._body, headers=identity) as response,
            ):
                for piece in response.iter_text():
                    self.text += piece
        except httpx.HTTPError as error:
            self.failure = error

    def heard(self, text):
        """Wait until the client has read this."""
        eventually(lambda: text in self.text)
        return self

    def messages(self):
        self.join()
        assert self.failure is None, self.failure
        return messages_of(self.text)


def refused(gateway):
    try:
        httpx.get(f"{gateway.url}/healthz")
    except httpx.ConnectError:
        return True
    except httpx.TransportError:  # let in, and then left
        return False
    return False


def test_open_streams_finish_and_new_connections_are_refused(launch, upstream):
    held = [f"ok:tokens=24,held=3,tag={new_id()}", f"ok:held=0,tag={new_id()}"]
    with launch(server={"drain": "60s"}) as gateway:
        streams = [Streaming(gateway, upstream, chat(model, stream=True)) for model in held]
        unary = Streaming(gateway, upstream, chat(held[1]))
        streams[0].heard(answers.PIECES[2])
        gateway.signal(signal.SIGTERM)
        eventually(lambda: refused(gateway))
        assert all(stream.is_alive() for stream in (*streams, unary))
        for model in held:
            upstream.release(f"fake/{model}")
        for stream, count in zip(streams, (24, 12), strict=True):
            *chunks, done = stream.messages()
            assert (text_of(chunks), done) == (answers.text(count), "[DONE]")
        unary.join()
        assert answers.PIECES[2] in unary.text
        assert gateway.wait() == 0
        assert {line["outcome"] for line in gateway.access_log()} == {"ok"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_when_the_time_to_drain_is_over_streams_end_with_an_error(launch, upstream, number):
    with launch(server={"drain": "500ms"}) as gateway:
        begun = Streaming(gateway, upstream, chat("stall:at=3", stream=True)).heard(answers.PIECES[2])
        waiting = Streaming(gateway, upstream, chat("silence", stream=True)).heard(": waiting")
        unary = Streaming(gateway, upstream, chat("silence"))
        gateway.signal(number)
        *chunks, last = begun.messages()
        assert text_of(chunks) == answers.text(3)
        assert error_of(last)["code"] == "shutting_down"
        assert error_of(waiting.messages()[-1])["code"] == "shutting_down"
        unary.join()
        assert error_of(unary.text)["code"] == "shutting_down"
        for stream in (begun, waiting, unary):
            assert "[DONE]" not in stream.text
            assert upstream.ended(stream.identity)["end"] == "disconnected"
        assert gateway.wait() == 0


def test_a_second_signal_stops_at_once(launch, upstream):
    with launch(server={"drain": "10m"}) as gateway:
        stream = Streaming(gateway, upstream, chat("stall:at=3", stream=True)).heard(answers.PIECES[2])
        children = descendants(gateway.pid)
        gateway.signal(signal.SIGTERM)
        eventually(lambda: refused(gateway))
        assert stream.is_alive()
        gateway.signal(signal.SIGTERM)
        gateway.wait()
        eventually(lambda: not any(alive(child) for child in children))
        stream.join()
        assert "[DONE]" not in stream.text


def test_a_gateway_that_dies_takes_its_children_with_it(launch, upstream):
    with launch(server={"workers": 2, "drain": "300ms"}) as gateway:
        stream = Streaming(gateway, upstream, chat("stall:at=3", stream=True)).heard(answers.PIECES[2])
        children = descendants(gateway.pid)
        assert len(children) >= 2
        gateway.signal(signal.SIGKILL)
        eventually(lambda: not any(alive(child) for child in children))
        assert error_of(stream.messages()[-1])["code"] == "shutting_down"
