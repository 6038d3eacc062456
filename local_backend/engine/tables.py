"""The blocks that each sequence holds: known ones found again, new ones taken, old ones let go.

A sequence's table lists its blocks in the order of its text. Behind the sinks of a sliding window `dropped`
of them are gone; every index into the text counts them.
"""

from dataclasses import dataclass

from local_backend.engine.blocks import BlockPool, chain
from local_backend.engine.request import Sequence
from local_backend.engine.window import Window


@dataclass
class Tables:
    """Keeps the tables of all sequences. Used by the engine's thread alone.

    `window` None keeps a text whole. `share_answers`: generated tokens may be found as a prefix too.
    """

    pool: BlockPool
    window: Window | None
    share_answers: bool

    def fits(self, sequence: Sequence) -> bool:
        """Whether the free blocks are enough for what the sequence has now, and a token more."""
        free = self.pool.free
        is_bounded = self.window is not None and free >= self.window.blocks
        return is_bounded or free * self.pool.size > len(sequence)

    def stretch(self, start: int, end: int) -> int:
        """How far one pass from `start` may go, at most to `end`: all its tokens must see the same blocks."""
        if self.window is None:
            return end
        length = self.window.step * self.pool.size
        return min(end, start - start % length + length)

    def extend(self, sequence: Sequence, end: int) -> bool:
        """Hold blocks for the positions before `end`, which one pass computes; False when none is left."""
        self._slide(sequence, (end - 1) // self.pool.size)
        while sequence.blocks * self.pool.size < end:
            if (block := self.pool.take()) is None:
                return False
            sequence.table.append(block)
        return True

    def slides(self, sequence: Sequence, end: int) -> bool:
        """Whether `extend` would let go of blocks."""
        return self._surplus(sequence, (end - 1) // self.pool.size) > 0

    def advance(self, sequence: Sequence, end: int) -> None:
        """The positions before `end` are cached now: full blocks become known to others."""
        sequence.num_cached = end
        size = self.pool.size
        for index in range(len(sequence.names), end // size):
            start, stop = index * size, (index + 1) * size
            parent = _last_name(sequence)
            tokens = sequence.tokens(start, stop)
            if stop <= len(sequence.prompt) or self.share_answers:
                self.pool.publish(sequence.table[index - sequence.dropped], parent, tokens)
            sequence.names.append(chain(parent, tokens))

    def take_known(self, sequence: Sequence) -> int:
        """Hold the blocks of the prompt that are cached already; how many positions those save.

        Its last token is always computed anew. So is everything of a text whose hidden states are wanted.
        """
        if sequence.params is None:
            return 0
        before, size = sequence.num_cached, self.pool.size
        if self.window is not None and not sequence.table:
            self._take_latest(sequence, self.window)
        while (end := sequence.num_cached + size) < self._end_of_known(sequence):
            if sequence.num_cached % size or sequence.blocks * size > sequence.num_cached:
                break
            tokens = sequence.tokens(sequence.num_cached, end)
            block = self.pool.find(_last_name(sequence), tokens)
            if block is None:
                break
            self._slide(sequence, sequence.blocks)
            sequence.table.append(block)
            self.advance(sequence, end)
        return sequence.num_cached - before

    def release(self, sequence: Sequence, *, spoilt: bool = False) -> None:
        """Give all of a sequence's blocks back; `spoilt` ones are not kept as a prefix."""
        self.pool.release(sequence.table, spoilt=spoilt)
        sequence.table, sequence.names, sequence.dropped = [], [], 0

    def _take_latest(self, sequence: Sequence, window: Window) -> None:
        """Go on from the last place whose sinks and recent blocks are known, whatever is lost between."""
        size = self.pool.size
        count = (self._end_of_known(sequence) - 1) // size
        prefixes = [(sequence.root, sequence.tokens(0, size))]
        for index in range(1, count):
            tokens = sequence.tokens(index * size, (index + 1) * size)
            prefixes.append((chain(*prefixes[-1]), tokens))
        known_from, best = 0, 0
        for index in range(count):
            if not self.pool.knows(*prefixes[index]):
                if index < window.sinks:
                    break
                known_from = index + 1
            if known_from <= window.sinks + window.dropped(index + 1):
                best = index + 1
        dropped = window.dropped(best)
        kept = [*range(min(window.sinks, best)), *range(window.sinks + dropped, best)]
        found = [self.pool.find(*prefixes[index]) for index in kept]
        sequence.table = [block for block in found if block is not None]
        sequence.names = [chain(*prefix) for prefix in prefixes[:best]]
        sequence.dropped, sequence.num_cached = dropped, best * size

    def _slide(self, sequence: Sequence, block: int) -> None:
        """Let go of what the text's block of that index doesn't see."""
        if self.window is not None and (count := self._surplus(sequence, block)) > 0:
            gone = slice(self.window.sinks, self.window.sinks + count)
            self.pool.release(sequence.table[gone])
            del sequence.table[gone]
            sequence.dropped += count

    def _surplus(self, sequence: Sequence, block: int) -> int:
        return 0 if self.window is None else self.window.dropped(block) - sequence.dropped

    @staticmethod
    def _end_of_known(sequence: Sequence) -> int:
        """The first position that is not looked for in the cache."""
        return len(sequence.prompt) + bool(sequence.generated)


def _last_name(sequence: Sequence) -> bytes:
    return sequence.names[-1] if sequence.names else sequence.root
