"""How long a text may be, and how much of it the cache keeps."""

from dataclasses import dataclass

from local_backend.engine.window import Window
from local_backend.errors import ConfigError
from local_backend.model.long_context import SINKS, Extension

BLOCK_SIZE = 64
"""Tokens of a block of the cache."""
ENDLESS = (1 << 31) - 1
"""Tokens of a text without an end: two years of writing at thirty a second."""


@dataclass(frozen=True)
class Lengths:
    """In tokens: a whole text, prompt and answer together, and what the cache keeps of it."""

    longest: int
    kept: int
    slides: bool = False

    @classmethod
    def of(cls, extension: Extension, trained: int, max_length: int | None, window: int | None) -> "Lengths":
        """What the options ask of a model trained on `trained` tokens. Raises ConfigError."""
        if extension is Extension.SLIDING:
            kept = window or trained
            return cls(max_length or ENDLESS, kept, slides=True)
        if window is not None:
            raise ConfigError("--window belongs to --extend sliding")
        length = max_length or trained
        return cls(length, length)

    def window(self, chunk: int) -> Window | None:
        """In blocks, where prompts are run by `chunk` tokens; None where all is kept. Raises ConfigError."""
        if not self.slides:
            return None
        if self.kept % BLOCK_SIZE:
            raise ConfigError(f"--window {self.kept} is no multiple of {BLOCK_SIZE}")
        sinks = SINKS // BLOCK_SIZE
        try:
            return Window(sinks, self.kept // BLOCK_SIZE - sinks, chunk // BLOCK_SIZE)
        except ValueError as error:
            raise ConfigError(f"--window {self.kept} is too small: {error}") from error
