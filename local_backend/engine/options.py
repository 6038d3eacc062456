"""What an engine is told when it is made."""

from dataclasses import dataclass, field

from local_backend.engine.scheduler import SchedulerOptions
from local_backend.measure.gauge import CORE_WATTS, Cores, Gauge


@dataclass(frozen=True)
class EngineOptions:
    """max_length is in tokens, prompt and answer together; `model` separates its prefixes from others'.

    `guesses` is how many tokens of a sequence one pass may check ahead, 0 for no speculation. `gauge` tells
    the energy that passes take.
    """

    max_queue: int
    max_length: int
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    blocks: int
    block_size: int = 64
    model: str = ""
    guesses: int = 8
    scheduling: SchedulerOptions = field(default_factory=SchedulerOptions)
    gauge: Gauge = field(default_factory=lambda: Cores(CORE_WATTS))

    def __post_init__(self) -> None:
        if self.max_queue < 0:
            raise ValueError("max_queue must be at least 0")
        window = self.scheduling.window
        kept = self.max_length if window is None else window.blocks * self.block_size
        if self.blocks * self.block_size < kept:
            raise ValueError(f"{self.blocks} blocks of {self.block_size} tokens don't hold {kept}")
