"""What a caller asks of the engine and what it hears back, and the engine's own state of one sequence."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from local_backend.engine.blocks import Block
from local_backend.engine.effort import Effort
from local_backend.engine.structured import Grammar


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are chosen. Temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 keep every token.

    `seed` makes a result repeatable whatever runs beside it; without one the draw is random. `top_logprobs`
    None reports no log-probabilities, 0 those of the chosen tokens alone. `grammar` is the answer's form.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    top_logprobs: int | None = None
    grammar: Grammar | None = None


class FinishReason(StrEnum):
    """Why a sequence ended, in OpenAI's words where it has them."""

    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


@dataclass(frozen=True)
class Token:
    """A sampled token; log-probabilities are the model's own, before temperature and penalties."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Finished:
    """The last event of a sequence, what it took, and how much of its prompt was found in the cache."""

    reason: FinishReason
    effort: Effort = field(default=Effort(), compare=False)
    cached_tokens: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Embedding:
    """A text's vector."""

    values: tuple[float, ...]


Event = Token | Embedding | Finished


@dataclass(eq=False)
class Sequence:
    """One generation inside the engine: its tokens, the blocks it holds, and how much of it is cached.

    Without `params` its vector is wanted and no tokens. A lower `priority` goes first. `root` is the prefix
    that its first block follows: it separates tenants. `table` lists the blocks in the order of the text;
    `dropped` of them, behind the first ones, are gone. `prefilled` are the tokens of its prompt that were
    computed, some of them twice if it was preempted.
    """

    request_id: int
    prompt: tuple[int, ...]
    params: SamplingParams | None
    priority: int = 0
    root: bytes = b""
    generated: list[int] = field(default_factory=list)
    table: list[Block] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)
    dropped: int = 0
    num_cached: int = 0
    prefilled: int = 0

    def __len__(self) -> int:
        return len(self.prompt) + len(self.generated)

    @property
    def blocks(self) -> int:
        """How many blocks its text takes up to the last one that it holds, those that are gone included."""
        return self.dropped + len(self.table)

    @property
    def urgency(self) -> tuple[int, int]:
        """Sorts sequences: by priority, then in the order they came."""
        return self.priority, self.request_id

    @property
    def is_prefilled(self) -> bool:
        """Whether only tokens that it generated itself are not cached yet, the last one always."""
        return self.num_cached >= len(self.prompt)

    @property
    def cached_prompt(self) -> int:
        """Tokens of a prompt, run to its end, that were found in the cache."""
        return max(0, len(self.prompt) - self.prefilled) if self.is_prefilled else 0

    def token(self, position: int) -> int:
        """The token at a position, of the prompt or the answer."""
        offset = position - len(self.prompt)
        return self.generated[offset] if offset >= 0 else self.prompt[position]

    def tokens(self, start: int, end: int) -> tuple[int, ...]:
        """The tokens at positions [start, end), prompt and answer."""
        if end <= len(self.prompt):
            return self.prompt[start:end]
        return (*self.prompt, *self.generated)[start:end]
