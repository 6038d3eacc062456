"""Blocks of the latent cache: who holds each, which are free, and which still hold a known prefix.

PagedAttention (arXiv 2309.06180): a sequence holds whole blocks, wherever they lie, and a block with the same
tokens after the same prefix is held by several. Taking a block and giving it back take constant time. A block
that nobody holds keeps its contents until it is needed for something else, the least recently used first;
a sequence's last blocks are given back first, so that a prefix outlives what continues it.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np


@dataclass(slots=True, eq=False)
class Block:
    """`ref` sequences hold it; `hash` names its tokens and all before them, `parent` those before alone.

    A block without a hash is one sequence's own: it is being filled, or must not be shared.
    """

    id: int
    ref: int = 0
    hash: bytes | None = None
    parent: bytes = b""
    tokens: tuple[int, ...] = ()


class IntegrityError(Exception):
    """The books of the blocks contradict themselves."""


class BlockPool:
    """The blocks and the index of shared ones. Used by the engine's thread alone."""

    def __init__(self, count: int, size: int) -> None:
        """`size` is in tokens."""
        self.size = size
        self._blocks = [Block(index) for index in range(count)]
        # A stack with the lowest on top: what is taken in one go lies side by side, and is read in place.
        self._empty = self._blocks[::-1]
        self._unheld: OrderedDict[int, Block] = OrderedDict()
        self._index: dict[bytes, Block] = {}

    @property
    def count(self) -> int:
        """All blocks there are."""
        return len(self._blocks)

    @property
    def free(self) -> int:
        """Blocks that can be taken, those that keep a prefix among them."""
        return len(self._empty) + len(self._unheld)

    @property
    def cached(self) -> int:
        """Blocks that hold a known prefix, held by sequences or not."""
        return len(self._index)

    def take(self) -> Block | None:
        """An empty block, None when every block is held."""
        if self._empty:
            block = self._empty.pop()
        elif self._unheld:
            block = self._unheld.popitem(last=False)[1]
            self._forget(block)
        else:
            return None
        block.ref = 1
        return block

    def find(self, parent: bytes, tokens: tuple[int, ...]) -> Block | None:
        """The block with these tokens after that prefix, now held once more; None when it isn't known."""
        if not self.knows(parent, tokens):
            return None
        block = self._index[chain(parent, tokens)]
        if not block.ref:
            del self._unheld[block.id]
        block.ref += 1
        return block

    def knows(self, parent: bytes, tokens: tuple[int, ...]) -> bool:
        """Whether `find` would find it."""
        block = self._index.get(chain(parent, tokens))
        return block is not None and block.tokens == tokens and block.parent == parent

    def publish(self, block: Block, parent: bytes, tokens: tuple[int, ...]) -> None:
        """Let others find a full block; where they can find another with the same tokens, nothing changes."""
        name = chain(parent, tokens)
        if name not in self._index:
            block.hash, block.parent, block.tokens = name, parent, tokens
            self._index[name] = block

    def release(self, blocks: Sequence[Block], *, spoilt: bool = False) -> None:
        """Give a sequence's blocks back; of `spoilt` ones nothing is kept."""
        for block in reversed(blocks):
            block.ref -= 1
            if spoilt:
                self._forget(block)
            if block.ref:
                continue
            if block.hash is None:
                self._empty.append(block)
            else:
                self._unheld[block.id] = block

    def check(self) -> None:
        """Raises IntegrityError unless every block is free, as it must be while no sequence exists."""
        if held := [block.id for block in self._blocks if block.ref]:
            raise IntegrityError(f"blocks {held[:10]} are held by nobody's sequence")
        free = {block.id for block in self._empty} | set(self._unheld)
        if len(free) != self.count or self.free != self.count:
            raise IntegrityError(f"{self.free} entries stand for {len(free)} free of {self.count} blocks")
        known = {block.id for block in self._index.values()}
        if known != set(self._unheld) or any(b.hash != name for name, b in self._index.items()):
            raise IntegrityError("the prefix index names blocks that hold something else")

    def _forget(self, block: Block) -> None:
        if block.hash is not None:
            del self._index[block.hash]
            block.hash, block.parent, block.tokens = None, b"", ()


def chain(parent: bytes, tokens: tuple[int, ...]) -> bytes:
    """The name of a block: its tokens and, through the parent's name, all before them."""
    return blake2b(parent + np.asarray(tokens, np.int64).tobytes(), digest_size=16).digest()


def root(*salt: str) -> bytes:
    """The parent of first blocks; prefixes under different salts are never shared."""
    return blake2b("\0".join(salt).encode(), digest_size=16).digest()
