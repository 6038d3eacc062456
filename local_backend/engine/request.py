"""What a caller asks of the engine and what it hears back, and the engine's own state of one sequence."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are chosen. Temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 keep every token.

    `seed` makes a result repeatable whatever runs beside it; without one the draw is random. `top_logprobs`
    None reports no log-probabilities, 0 those of the chosen tokens alone.
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
    """The last event of a sequence. `seconds` is how long it occupied the model, None if it never ran."""

    reason: FinishReason
    seconds: float | None = None


Event = Token | Finished


@dataclass(eq=False)
class Sequence:
    """One generation inside the engine: its tokens, its cache slot, and how much of it is cached."""

    request_id: int
    prompt: tuple[int, ...]
    params: SamplingParams
    generated: list[int] = field(default_factory=list)
    slot: int | None = None
    num_cached: int = 0
    started: float | None = None

    @property
    def is_prefilled(self) -> bool:
        """Whether the next step decodes: only the last sampled token is not cached yet."""
        return self.num_cached >= len(self.prompt)
