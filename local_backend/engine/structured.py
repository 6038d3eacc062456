"""Answers that must have a form: a compiled grammar, and the tokens that it lets come next.

llguidance (an Earley parser over derivatives of its lexemes' expressions, walking a trie of the vocabulary)
says for every state which tokens continue it. A compiled grammar is shared; each sequence has its own place.
"""

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from torch import Tensor

_SILENT = 0
_LIMITS = LLParserLimits(verbose_errors=False)


class GrammarError(Exception):
    """A grammar that cannot be compiled, or that what is to be continued doesn't fit."""


class Unparseable(Exception):
    """The grammar has no way to go on."""


class Constraint:
    """One sequence's place in its grammar."""

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size

    @property
    def is_complete(self) -> bool:
        """Whether nothing can follow but the end."""
        return self._matcher.is_stopped()

    def restrict(self, logits: Tensor) -> Tensor:
        """Logits [vocab_size] with those of every token that may not come next at minus infinity."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        allowed = torch.from_numpy(np.unpackbits(bits, count=self._vocab_size, bitorder="little"))
        return logits.masked_fill(allowed == 0, float("-inf"))

    def accept(self, token: int) -> None:
        """Go on by a token. Raises Unparseable when it may not come here."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise Unparseable(_reason(self._matcher))


class Grammar:
    """A compiled grammar, from the place where an answer begins."""

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size

    def begin(self) -> Constraint:
        """A place of its own for one sequence."""
        return Constraint(self._matcher.deep_copy(), self._vocab_size)


class GrammarCompiler:
    """Compiles grammars for one model's vocabulary; usable from several threads."""

    def __init__(self, tokenizer: Path, vocab_size: int, eos_token_ids: Sequence[int]) -> None:
        """`tokenizer` is the tokenizer.json, read when the first grammar comes, which takes a second."""
        self._path = tokenizer
        self._vocab_size = vocab_size
        self._eos_token_ids = list(eos_token_ids)
        self._lock = threading.Lock()

    def compile(self, grammar: str, prefix: Sequence[int] = ()) -> Grammar:
        """Compile what llguidance takes as a grammar; `prefix` are tokens that the answer has already.

        Raises GrammarError, whose message is about the grammar and meant for who wrote it.
        """
        with self._lock:
            vocabulary = self._vocabulary
        matcher = LLMatcher(vocabulary, grammar, log_level=_SILENT, limits=_LIMITS)
        if matcher.is_error():
            raise GrammarError(_reason(matcher))
        if matcher.try_consume_tokens(list(prefix)) < len(prefix):
            raise GrammarError("what the answer is to go on from doesn't fit the form that is asked for")
        return Grammar(matcher, self._vocab_size)

    @cached_property
    def _vocabulary(self) -> LLTokenizer:
        text = self._path.read_text(encoding="utf-8")
        return LLTokenizer(text, n_vocab=self._vocab_size, eos_token=self._eos_token_ids)


def _reason(matcher: LLMatcher) -> str:
    return matcher.get_error().removesuffix("<non-verbose/>").strip()
