"""One call through a real gateway whose upstreams fail as told: what the client got, and what they saw."""

import json
import time
import uuid
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx

from tests.kit import answers
from tests.kit.chat import CHAT, PROMPT, comments_of, error_of, messages_of, new_id, text_of
from tests.kit.lateness import Lateness
from tests.kit.processes import ADMIN_KEY, CLIENT_KEY, UPSTREAM_KEY, Gateway, Upstream

TOKENS = 60
WHOLE = answers.text(TOKENS)
GOOD = f"ok:tokens={TOKENS}"
DONE = "[DONE]"

FIRST_TOKEN, STALL, UNARY = 1.0, 0.7, 1.5
PING = 0.2
"""Seconds between the comments that a waiting client hears."""
TIMEOUTS = {"connect": "2s", "first_token": "1s", "stall": "700ms", "unary": "1500ms", "total": "30s"}
PATIENT = {**TIMEOUTS, "first_token": "10s", "stall": "10s", "unary": "10s"}


def config(bad: str, good: str, folder: Any) -> dict[str, Any]:
    """A gateway whose models lead, by the first part of their names, to one upstream or to both."""

    def provider(url: str, preset: str, priority: int = 0) -> dict[str, Any]:
        return {"preset": preset, "base_url": f"{url}/v1", "api_key": UPSTREAM_KEY, "priority": priority}

    def model(*route: Any, **more: Any) -> dict[str, Any]:
        # Every test behind one glob spends from its budget, and all their calls fail at first.
        return {"route": list(route), "timeouts": TIMEOUTS, "retries": {"budget": "100%"}, **more}

    return {
        "server": {"port": 0, "ping": f"{PING * 1000:.0f}ms", "drain": "5s"},
        "database": f"sqlite:///{folder / 'keys.db'}",
        "admin": {"key": ADMIN_KEY},
        "providers": {
            "bad": {**provider(bad, "vllm"), "context_windows": {"grow*": "8k", "shrink*": "32k"}},
            "good": {
                **provider(good, "vllm", priority=1),
                "context_windows": {"grow*": "32k", "shrink*": "8k"},
            },
            "bad-no-prefill": provider(bad, "openai"),
            "good-no-prefill": provider(good, "openai", priority=1),
            "single": {**provider(bad, "vllm"), "max_concurrency": 1},
        },
        "models": {
            "alone/*": model("bad/*"),
            "pair/*": model("bad/*", "good/*"),
            "equals/*": model(["bad/*", "good/*"], balance="priority"),
            "grow/*": model("bad/*", "good/*"),
            "shrink/*": model("bad/*", "good/*"),
            "grow-equals/*": model(["bad/*", "good/*"], balance="priority"),
            "shrink-equals/*": model(["bad/*", "good/*"], balance="priority"),
            "repeat/*": model("bad-no-prefill/*", "good-no-prefill/*"),
            "single/*": model("single/*"),
            "honest/*": model("bad/*", "good/*", on_stream_break="error"),
            "patient/*": model("bad/*", "good/*", timeouts=PATIENT),
            "named": model("bad/small", "good/large"),
            "named-reverse": model("good/large", "bad/small"),
        },
        "keys": [{"name": "client", "key": CLIENT_KEY, "tenant": "acme"}],
    }


@dataclass
class Got:
    """What the client got. ``error`` is the error object of a body or of a stream's last message.

    It took ``seconds``, ``waited`` of which weren't the machine's own lateness.
    """

    id: str
    status: int
    headers: httpx.Headers
    body: str
    seconds: float
    waited: float
    stream: bool
    messages: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.stream and self.headers["content-type"].startswith("text/event-stream"):
            self.messages = messages_of(self.body)

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return [json.loads(message) for message in self.messages if message != DONE]

    @property
    def text(self) -> str:
        if self.messages:
            return text_of(message for message in self.messages if "error" not in message[:10])
        return str(json.loads(self.body)["choices"][0]["message"]["content"])

    @property
    def error(self) -> dict[str, Any]:
        return error_of(self.messages[-1] if self.messages else self.body)

    @property
    def usage(self) -> dict[str, int] | None:
        if not self.stream:
            return json.loads(self.body).get("usage")
        found = [chunk["usage"] for chunk in self.chunks if chunk.get("usage")]
        return found[-1] if found else None

    @property
    def upstream(self) -> str | None:
        return self.headers.get("x-tidegate-upstream")

    @property
    def comments(self) -> list[str]:
        return comments_of(self.body)

    def is_whole(self, text: str = WHOLE) -> None:
        """It is the exact answer: every character once, one finish, one [DONE], one id throughout."""
        assert self.status == 200, self.body
        assert self.text == text
        if not self.stream:
            assert [choice["finish_reason"] for choice in json.loads(self.body)["choices"]] == ["stop"]
            return
        assert self.messages[-1] == DONE
        assert self.messages.count(DONE) == 1
        reasons = [choice["finish_reason"] for chunk in self.chunks for choice in chunk["choices"]]
        assert [reason for reason in reasons if reason] == ["stop"]
        assert reasons[-1] == "stop", "text after the finish"
        assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in self.chunks}) == 1

    def failed(self, status: int, code: str) -> None:
        """It is an error of the gateway's before any part of an answer."""
        assert (self.status, self.error["code"]) == (status, code), self.body
        assert set(self.error) == {"message", "type", "param", "code"}
        assert self.headers["content-type"] == "application/json"
        assert self.headers["x-should-retry"] in {"true", "false"}
        assert UPSTREAM_KEY not in self.body

    def ended_with(self, status: int, code: str) -> None:
        """It is an error and no part of an answer, be it behind pings that had to go out under a 200."""
        if self.stream and self.status == 200:
            self.broke("", code)
        else:
            self.failed(status, code)

    def broke(self, delivered: str, code: str = "stream_interrupted") -> None:
        """It is the beginning of an answer that ends with an error and without [DONE]."""
        assert self.status == 200
        assert self.text == delivered
        assert DONE not in self.messages
        assert self.error["code"] == code
        assert "error" in json.loads(self.messages[-1])
        assert sum('"error"' in message for message in self.messages) == 1


class Scene:
    """A model of its own, so that no other call's failures are remembered, behind ``family``'s route."""

    def __init__(self, gateway: Gateway, bad: Upstream, good: Upstream, family: str) -> None:
        self._gateway = gateway
        self._bad, self._good = bad, good
        self.model = f"{family}/{uuid.uuid4().hex[:12]}"

    def set(self, bad: str | None = None, good: str | None = None) -> "Scene":
        """Have the upstreams behave so from now on."""
        for upstream, behaviour in ((self._bad, bad), (self._good, good)):
            if behaviour is not None:
                upstream.behave(self.model, behaviour)
        return self

    def ask(self, *, stream: bool = True, **more: Any) -> Got:
        """One chat, read to its end."""
        if stream:
            more.setdefault("stream_options", {"include_usage": True})
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": PROMPT}],
            "stream": stream,
            **more,
        }
        started = time.monotonic()
        identity = new_id()
        with self._gateway.client() as client, Lateness() as lateness:
            response = client.post(CHAT, json=body, headers={"x-request-id": identity})
        seconds = time.monotonic() - started
        waited = seconds - lateness.total
        return Got(identity, response.status_code, response.headers, response.text, seconds, waited, stream)

    def bad_saw(self, got: Got) -> list[dict[str, Any]]:
        return self._bad.seen(got.id)

    def good_saw(self, got: Got) -> list[dict[str, Any]]:
        return self._good.seen(got.id)

    def bad_ended(self, got: Got) -> str:
        """Wait until the first of them is done with a call; how that ended."""
        return str(self._bad.ended(got.id)["end"])

    def saw(self, got: Got) -> tuple[int, int]:
        """How many attempts reached each of them for one call."""
        return len(self.bad_saw(got)), len(self.good_saw(got))


def gaps(seen: list[dict[str, Any]]) -> list[float]:
    """Seconds from the beginning of each attempt to that of the next, which are told before any answer."""
    return [later["arrived"] - earlier["arrived"] for earlier, later in pairwise(seen)]
