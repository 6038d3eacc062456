"""What the faulty upstream answers: a text that a test can work out by itself, in OpenAI's shapes."""

from typing import Any

PIECES = (
    "The tide ",
    "turns, ",
    "潮が",
    "満ちる。",
    " 🌊 ",
    "Прилив ",
    "идёт, ",
    "المد ",
    "👩‍👩‍👧 ",
    "café ",
    "naïve ",
    "𐍃𐌰𐌹𐍅𐍃 ",
)
"""Tokens of one to four bytes a character, one of them joined from several code points."""

PROMPT_TOKENS = 7
CREATED = 1_700_000_000


def pieces(count: int) -> list[str]:
    """The first ``count`` tokens of the text; each round through ``PIECES`` begins with its number."""
    return [
        f"{index // len(PIECES)}:{PIECES[0]}" if index % len(PIECES) == 0 else PIECES[index % len(PIECES)]
        for index in range(count)
    ]


def text(count: int) -> str:
    """The whole answer of ``count`` tokens."""
    return "".join(pieces(count))


def usage(count: int, prefilled: int = 0) -> dict[str, int]:
    """The usage of an answer of ``count`` tokens whose beginning, ``prefilled`` tokens, was given."""
    prompt = PROMPT_TOKENS + prefilled
    return {"prompt_tokens": prompt, "completion_tokens": count, "total_tokens": prompt + count}


def error(message: str, kind: str = "server_error", code: str | int | None = None) -> dict[str, Any]:
    """An error body."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def chunk(model: str, choice: dict[str, Any], *, chat: bool) -> dict[str, Any]:
    """One chunk of a stream; ``choice`` holds delta or text, and perhaps index and finish_reason."""
    return {
        "id": "chatcmpl-tide" if chat else "cmpl-tide",
        "object": "chat.completion.chunk" if chat else "text_completion",
        "created": CREATED,
        "model": model,
        "choices": [{"index": 0, "finish_reason": None, **choice}],
    }


def usage_chunk(model: str, count: int, prefilled: int = 0, *, chat: bool) -> dict[str, Any]:
    """The chunk that ends a stream whose client asked for usage."""
    return {**chunk(model, {}, chat=chat), "choices": [], "usage": usage(count, prefilled)}


def whole(model: str, choices: list[dict[str, Any]], count: int, *, chat: bool) -> dict[str, Any]:
    """A unary answer; each of ``choices`` holds message or text."""
    return {
        "id": "chatcmpl-tide" if chat else "cmpl-tide",
        "object": "chat.completion" if chat else "text_completion",
        "created": CREATED,
        "model": model,
        "choices": [
            {"index": index, "finish_reason": "stop", "logprobs": None, **choice}
            for index, choice in enumerate(choices)
        ],
        "usage": usage(count),
    }


def embeddings(model: str, inputs: list[Any]) -> dict[str, Any]:
    """One vector of three numbers for each input, told apart by their first."""
    data = [
        {"object": "embedding", "index": index, "embedding": [float(index), 0.5, -0.25]}
        for index in range(len(inputs))
    ]
    counts = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
    return {"object": "list", "data": data, "model": model, "usage": counts}


TOOL_CALL = {
    "id": "call_tide",
    "type": "function",
    "function": {"name": "tide_table", "arguments": '{"port": "Saint-Malo", "unit": "m"}'},
}
"""What the behaviour "tools" answers; in a stream its arguments come in two parts."""
