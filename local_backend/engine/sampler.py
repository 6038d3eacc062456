"""Chooses one token from one sequence's logits.

Every sequence has its own generator and is sampled on its own, so a seed gives the same tokens whatever else
is in the batch. The draw inverts the cumulative distribution with a single uniform number.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from local_backend.engine.request import SamplingParams, Token

# Enough for nearly every nucleus; a wider one falls back to sorting the whole vocabulary.
_NUCLEUS_GUESS = 256
_GREEDY_BELOW = 1e-5


class Sampler:
    """The sampling state of one sequence: its generator, what penalties count, its place in a form."""

    def __init__(self, params: SamplingParams, prompt: Iterable[int], vocab_size: int) -> None:
        self.params = params
        self._generator = torch.Generator()
        if params.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(params.seed % 2**63)
        self._bias_ids = torch.tensor(list(params.logit_bias), dtype=torch.int64)
        self._bias = torch.tensor(list(params.logit_bias.values()), dtype=torch.float32)
        self._counts: Tensor | None = None
        if params.presence_penalty or params.frequency_penalty:
            self._counts = torch.zeros(vocab_size)
        self._seen: Tensor | None = None
        if params.repetition_penalty != 1.0:
            self._seen = torch.zeros(vocab_size, dtype=torch.bool)
            self._seen[torch.tensor(list(prompt), dtype=torch.int64)] = True
        self._constraint = params.grammar.begin() if params.grammar is not None else None

    @property
    def is_complete(self) -> bool:
        """Whether the form of the answer lets nothing follow."""
        return self._constraint is not None and self._constraint.is_complete

    def sample(self, logits: Tensor) -> Token:
        """Choose from float32 logits [vocab_size] on the CPU, and remember the choice."""
        chosen = self._choose(self._adjust(logits))
        if self._constraint is not None:
            self._constraint.accept(chosen)
        self.remember([chosen])
        if self.params.top_logprobs is None:
            return Token(chosen)
        logprobs = logits.log_softmax(-1)
        top = logprobs.topk(self.params.top_logprobs)
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return Token(chosen, float(logprobs[chosen]), tuple(pairs))

    def remember(self, tokens: Iterable[int]) -> None:
        """Count tokens of the answer for the penalties."""
        for token in tokens:
            if self._counts is not None:
                self._counts[token] += 1
            if self._seen is not None:
                self._seen[token] = True

    def _adjust(self, logits: Tensor) -> Tensor:
        """Bias, OpenAI's penalties, that on repetition as CTRL's (arXiv 1909.05858), and the form."""
        params = self.params
        if len(self._bias_ids):
            logits = logits.index_add(0, self._bias_ids, self._bias)
        if self._seen is not None:
            penalty = params.repetition_penalty
            logits = torch.where(
                self._seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits
            )
        if self._counts is not None:
            logits = (
                logits
                - params.frequency_penalty * self._counts
                - params.presence_penalty * (self._counts > 0)
            )
        return logits if self._constraint is None else self._constraint.restrict(logits)

    def _choose(self, logits: Tensor) -> int:
        if self.params.temperature < _GREEDY_BELOW:
            return int(logits.argmax())
        ids, probabilities = restrict(logits / self.params.temperature, self.params)
        cumulative = probabilities.double().cumsum(0)
        draw = torch.rand((), generator=self._generator, dtype=torch.float64) * cumulative[-1]
        index = int(torch.searchsorted(cumulative, draw, right=True))
        return int(ids[min(index, len(ids) - 1)])


def restrict(logits: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """The tokens that top_k, then top_p, then min_p leave: ids and their probabilities, not renormalised.

    top_p (arXiv 1904.09751) keeps the smallest set of likeliest tokens that reaches it; min_p (arXiv
    2407.01082) keeps those at least that fraction as likely as the likeliest. One token is always left.
    """
    if not params.top_k and params.top_p >= 1.0 and not params.min_p:
        return torch.arange(len(logits)), logits.softmax(-1)
    values, ids = logits.topk(min(params.top_k or _NUCLEUS_GUESS, len(logits)))
    if params.top_k:
        return _nucleus(ids, (values - values.logsumexp(0)).exp(), params)
    total = logits.logsumexp(0)
    kept, probabilities = _nucleus(ids, (values - total).exp(), params)
    if len(kept) == len(ids):
        values, ids = logits.sort(descending=True)
        return _nucleus(ids, (values - total).exp(), params)
    return kept, probabilities


def _nucleus(ids: Tensor, probabilities: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Apply top_p and min_p to tokens in falling order of probability."""
    before = probabilities.cumsum(0) - probabilities
    inside = (before < params.top_p) & (probabilities >= params.min_p * probabilities[0])
    inside[0] = True
    return ids[inside], probabilities[inside]
