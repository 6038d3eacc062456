"""Turns a stream of tokens into text that can be sent: whole characters, and nothing of a stop string."""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from local_backend.engine.request import Token
from local_backend.serve.tokenizer import Tokenizer


@dataclass(frozen=True)
class Piece:
    """Text that is certain by now, and the tokens whose text begins in it."""

    text: str
    tokens: tuple[Token, ...]


class TextStream:
    """Detokenises one sequence incrementally and watches for stop strings.

    Text is held back while it could still turn into a stop string or is only part of a character; a stop
    string that spans tokens is found as well as one inside a token. What the sequence writes again of an
    answer that it goes on from is dropped; `tokens` counts those that write more.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str], repeated: int = 0) -> None:
        """`repeated` is in bytes."""
        self._tokenizer = tokenizer
        self._repeated = repeated
        self._stop = [text for text in stop if text]
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self._sent = 0
        self._length = 0
        self._pending: list[tuple[int, Token]] = []
        self.tokens = 0
        self.stopped = False

    def push(self, token: Token) -> Piece:
        """Take a token and give what is certain now. After a stop string (`stopped`) nothing more comes."""
        spelling = self._tokenizer.spelling(token.id)
        if self._repeated:
            spelling, self._repeated = spelling[self._repeated :], max(0, self._repeated - len(spelling))
            if not spelling:
                return Piece("", ())
        self.tokens += 1
        self._pending.append((self._length, token))
        text = self._decoder.decode(spelling)
        self._length += len(text)
        self._held += text
        if (start := self._find_stop()) is not None:
            self.stopped = True
            return self._release(start)
        return self._release(len(self._held) - self._longest_prefix())

    def flush(self) -> Piece:
        """What is left when the sequence ends for another reason."""
        self._held += self._decoder.decode(b"", final=True)
        return self._release(len(self._held), everything=True)

    def _release(self, count: int, everything: bool = False) -> Piece:
        text, self._held = self._held[:count], self._held[count:]
        self._sent += count
        due = [token for start, token in self._pending if everything or start < self._sent]
        self._pending = self._pending[len(due) :]
        return Piece(text, tuple(due))

    def _find_stop(self) -> int | None:
        found = [start for stop in self._stop if (start := self._held.find(stop)) >= 0]
        return min(found, default=None)

    def _longest_prefix(self) -> int:
        """How many characters at the end could be the beginning of a stop string."""
        longest = 0
        for stop in self._stop:
            for size in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:size]):
                    longest = size
                    break
        return longest
