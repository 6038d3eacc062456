"""Text to tokens and back, and the chat template.

Tokens are turned into bytes, not text: with byte-level BPE a token may end inside a character.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import tokenizers
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from local_backend.errors import WeightsError
from local_backend.weights import deepseek_io

# In tokens.
_LONGEST_WORD = 16


class ChatTemplateError(Exception):
    """The model's chat template refuses the messages."""


class Tokenizer:
    """A model folder's tokenizer and chat template. Raises WeightsError when they are missing or damaged."""

    def __init__(self, folder: Path) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / deepseek_io.TOKENIZER))
        # The tokenizers package raises plain Exception for a missing or damaged file.
        except Exception as error:
            raise WeightsError(f"cannot read {folder / deepseek_io.TOKENIZER}: {error}") from error
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals |= {
            "raise_exception": _raise,
            "strftime_now": lambda form: datetime.now(UTC).astimezone().strftime(form),
        }
        settings_path = folder / deepseek_io.TOKENIZER_CONFIG
        self._settings = deepseek_io.read_json(settings_path) if settings_path.exists() else {}
        self._template = environment.from_string(_chat_template(folder, self._settings))
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = {index for index, token in added.items() if token.special}
        self._bytes = [self._spell(index) for index in range(self._tokenizer.get_vocab_size())]

    def encode(self, text: str) -> list[int]:
        """Token ids; control tokens written in the text are recognised."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Render the messages, ready for the assistant's turn. Raises ChatTemplateError."""
        try:
            text = self._template.render(
                messages=messages, add_generation_prompt=True, **self._special_names()
            )
        except (TemplateError, TypeError) as error:
            raise ChatTemplateError(f"the model's chat template refuses these messages: {error}") from error
        return self.encode(text)

    def last_word(self, tokens: Sequence[int]) -> int:
        """Where the last word or run of spaces begins, or a character not too far back in one without end."""
        start = len(tokens)
        for index in reversed(range(max(0, len(tokens) - _LONGEST_WORD), len(tokens))):
            first = self.spelling(tokens[index])[:1]
            if not b"\x80" <= first < b"\xc0":
                start = index
            if first.isspace():
                break
        return start

    def decode(self, tokens: Sequence[int]) -> str:
        """The text that tokens write."""
        return b"".join(map(self.spelling, tokens)).decode(errors="replace")

    def spelling(self, token: int) -> bytes:
        """The bytes that a token writes; none for control tokens and for ids beyond the vocabulary."""
        return self._bytes[token] if token < len(self._bytes) else b""

    def _spell(self, index: int) -> bytes:
        token = self._tokenizer.id_to_token(index)
        if token is None or index in self._special:
            return b""
        if all(character in _BYTE_OF for character in token):
            return bytes(_BYTE_OF[character] for character in token)
        return str(token).encode()

    def _special_names(self) -> dict[str, str]:
        names = {}
        for key in ("bos_token", "eos_token"):
            value = self._settings.get(key)
            names[key] = value.get("content", "") if isinstance(value, dict) else value or ""
        return names


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str:
    path = folder / deepseek_io.CHAT_TEMPLATE
    if path.exists():
        return path.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if not isinstance(template, str):
        raise WeightsError(f"{folder} has no chat template")
    return template


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for bytes (its encoder.py, bytes_to_unicode)."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    alphabet = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in alphabet.values()]
    return alphabet | {chr(256 + offset): byte for offset, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()
