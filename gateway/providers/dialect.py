"""How one account wants to be asked: OpenAI's request in its provider's spelling."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.providers.encoding import Encoding
from gateway.settings.presets import Prefill
from policies.service import Call

_PREFIX = "prefix"


@dataclass(frozen=True, slots=True)
class Account:
    """One account of a provider: where it is, what identifies us there, and the dialect it speaks.

    ``rename`` maps a parameter of OpenAI's to the name that this provider knows it under;
    ``stream_usage`` tells whether it knows ``stream_options.include_usage``; ``prefill`` tells how it
    continues an answer whose beginning is the last message, None where it can't; ``bills_cancelled``
    tells whether a stream that was cancelled before its first token costs something nevertheless;
    ``compress`` is how requests may be encoded.
    """

    name: str
    base_url: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    stream_usage: bool = True
    rename: Mapping[str, str] = field(default_factory=dict)
    prefill: Prefill | None = None
    bills_cancelled: bool = True
    compress: Encoding | None = None

    def url(self, call: Call) -> str:
        """Where to send a call."""
        base = self.base_url
        if self.prefill is not None and self.prefill.base_url is not None and _continues(call.body):
            base = self.prefill.base_url
        return f"{base.rstrip('/')}/{call.operation.value}"

    def body(self, call: Call, model: str) -> dict[str, Any]:
        """What to send: the caller's body with our model's name, and nothing else changed without need."""
        body = {**call.body, "model": model}
        for theirs, ours in self.rename.items():
            if theirs in body:
                body[ours] = body.pop(theirs)
        if call.stream and self.stream_usage:
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        if self.prefill is not None and _continues(body):
            last = {key: value for key, value in body["messages"][-1].items() if key != _PREFIX}
            body["messages"] = [*body["messages"][:-1], {**last, **self.prefill.message}]
            body |= self.prefill.body
        return body


def _continues(body: Mapping[str, Any]) -> bool:
    """Whether the last message is the beginning of the answer, marked as DeepSeek and Mistral mark it."""
    messages = body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, dict) and last.get(_PREFIX) is True
