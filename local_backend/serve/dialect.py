"""How each endpoint words its answers: the chat and the completions forms of a choice."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from local_backend.engine.request import FinishReason, Token
from local_backend.serve.text import Piece
from local_backend.serve.tokenizer import Tokenizer
from local_backend.serve.tool_calls import Delta, ToolCallParser

_CUT = FinishReason.LENGTH.value


@dataclass
class Choice:
    """A whole answer, put together from its pieces."""

    index: int
    text: str = ""
    tokens: list[Token] = field(default_factory=list)
    finish_reason: str | None = None


class Dialect(Protocol):
    """The wording of one endpoint; every method but `whole` is for streaming."""

    id_prefix: str
    whole_object: str
    chunk_object: str

    def opening(self, index: int, /) -> dict[str, Any] | None:
        """The choice of the chunk that precedes an answer's text, if there is one."""

    def piece(self, index: int, piece: Piece) -> dict[str, Any] | None:
        """The choice of a chunk with text, None while there is nothing to say yet."""

    def closing(self, index: int, finish_reason: str) -> dict[str, Any]:
        """The choice of an answer's last chunk."""

    def whole(self, choice: Choice) -> dict[str, Any]:
        """A choice of the unary answer."""


class ChatDialect:
    """chat.completion and chat.completion.chunk."""

    id_prefix = "chatcmpl-"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, tokenizer: Tokenizer, with_logprobs: bool, *, calls_tools: bool) -> None:
        self._tokenizer = tokenizer
        self._with_logprobs = with_logprobs
        self._calls_tools = calls_tools
        self._parsers: defaultdict[int, ToolCallParser] = defaultdict(ToolCallParser)

    def opening(self, index: int) -> dict[str, Any]:
        delta = {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}

    def piece(self, index: int, piece: Piece) -> dict[str, Any] | None:
        logprobs = self._logprobs(piece.tokens)
        delta: dict[str, Any] = {"content": piece.text}
        if self._calls_tools:
            delta = _worded(self._parsers[index].push(piece.text))
        if not delta and not self._with_logprobs:
            return None
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}

    def closing(self, index: int, finish_reason: str) -> dict[str, Any]:
        parser = self._parsers[index]
        delta = _worded(parser.flush(is_cut=finish_reason == _CUT))
        reason = _finish_reason(parser, finish_reason)
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}

    def whole(self, choice: Choice) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
        parser = ToolCallParser()
        if self._calls_tools:
            said, left = parser.push(choice.text), parser.flush(is_cut=choice.finish_reason == _CUT)
            calls = _gathered(said.calls)
            message["content"] = said.text + left.text or (None if calls else "")
            if calls:
                message["tool_calls"] = calls
        return {
            "index": choice.index,
            "message": message,
            "logprobs": self._logprobs(choice.tokens),
            "finish_reason": _finish_reason(parser, choice.finish_reason),
        }

    def _logprobs(self, tokens: list[Token] | tuple[Token, ...]) -> dict[str, Any] | None:
        if not self._with_logprobs:
            return None
        content = []
        for token in tokens:
            top = [self._entry(*pair) for pair in token.top]
            content.append({**self._entry(token.id, token.logprob), "top_logprobs": top})
        return {"content": content, "refusal": None}

    def _entry(self, token: int, logprob: float | None) -> dict[str, Any]:
        spelling = self._tokenizer.spelling(token)
        return {"token": spelling.decode(errors="replace"), "logprob": logprob, "bytes": list(spelling)}


def _worded(delta: Delta) -> dict[str, Any]:
    worded: dict[str, Any] = {}
    if delta.text:
        worded["content"] = delta.text
    if delta.calls:
        worded["tool_calls"] = delta.calls
    return worded


def _gathered(deltas: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Whole calls from what a stream would say of them."""
    calls: list[dict[str, Any]] = []
    for delta in deltas:
        if "id" in delta:
            calls.append({key: value for key, value in delta.items() if key != "index"})
        else:
            calls[-1]["function"]["arguments"] += delta["function"]["arguments"]
    return calls


def _finish_reason(parser: ToolCallParser, reason: str | None) -> str | None:
    return "tool_calls" if parser.calls and reason == "stop" else reason


class CompletionDialect:
    """text_completion, unary and streamed."""

    id_prefix = "cmpl-"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, tokenizer: Tokenizer, with_logprobs: bool, echo: Sequence[str] | None = None) -> None:
        """`echo` is what each choice repeats before its text."""
        self._tokenizer = tokenizer
        self._with_logprobs = with_logprobs
        self._echo = echo
        self._offsets: dict[int, int] = {}

    def opening(self, index: int, /) -> dict[str, Any] | None:
        if self._echo is None:
            return None
        return {"index": index, "text": self._echo[index], "logprobs": None, "finish_reason": None}

    def piece(self, index: int, piece: Piece) -> dict[str, Any]:
        logprobs = self._logprobs(index, piece.tokens)
        return {"index": index, "text": piece.text, "logprobs": logprobs, "finish_reason": None}

    def closing(self, index: int, finish_reason: str) -> dict[str, Any]:
        return {"index": index, "text": "", "logprobs": None, "finish_reason": finish_reason}

    def whole(self, choice: Choice) -> dict[str, Any]:
        return {
            "index": choice.index,
            "text": (self._echo[choice.index] if self._echo else "") + choice.text,
            "logprobs": self._logprobs(choice.index, choice.tokens),
            "finish_reason": choice.finish_reason,
        }

    def _logprobs(self, index: int, tokens: list[Token] | tuple[Token, ...]) -> dict[str, Any] | None:
        if not self._with_logprobs:
            return None
        offset = self._offsets.get(index, 0)
        offsets = []
        for token in tokens:
            offsets.append(offset)
            offset += len(self._text(token.id))
        self._offsets[index] = offset
        return {
            "tokens": [self._text(token.id) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [{self._text(each): logprob for each, logprob in token.top} for token in tokens],
            "text_offset": offsets,
        }

    def _text(self, token: int) -> str:
        return self._tokenizer.spelling(token).decode(errors="replace")
