"""The nearest prompts of a scope: an HNSW graph for each scope (Malkov and Yashunin, 2016), by usearch.

Scopes never meet, so a tenant's prompt is never even compared with another's. Both prompts and scopes are
bounded: who was near to nothing for longest goes.
"""

from collections import OrderedDict
from dataclasses import dataclass

from usearch.index import Index

from gateway.cache.semantic.minilm import Array
from policies.cache.semantic_fit import Fit
from policies.cache.semantic_guards import Reading

_CANDIDATES = 4
_MOST_SCOPES = 1000
"""A graph takes 50 kB before it holds anything."""


@dataclass(slots=True, eq=False)
class Entry:
    """A prompt that was answered: the answer is in the store under ``key``."""

    scope: str
    text: str
    reading: Reading
    key: str
    fit: Fit
    label: int = -1


class PromptIndex:
    """Entries by the vectors of their texts, ``capacity`` of them."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._graphs: dict[str, Index] = {}
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._last = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry, vector: Array) -> None:
        """Take an entry in."""
        graph = self._graphs.get(entry.scope)
        if graph is not None and graph.ndim != len(vector):  # another model makes the vectors by now
            for old in [old for old in self._entries.values() if old.scope == entry.scope]:
                self.remove(old)
            graph = None
        if graph is None:
            graph = self._graphs[entry.scope] = Index(ndim=len(vector), metric="ip", dtype="f32")
        self._last += 1
        entry.label = self._last
        graph.add(entry.label, vector)
        self._entries[entry.label] = entry
        while len(self._entries) > self._capacity or len(self._graphs) > _MOST_SCOPES:
            self.remove(next(iter(self._entries.values())))

    def remove(self, entry: Entry) -> None:
        """Forget an entry, which may be forgotten already."""
        if self._entries.pop(entry.label, None) is None:
            return
        graph = self._graphs[entry.scope]
        graph.remove(entry.label)
        if not len(graph):
            del self._graphs[entry.scope]

    def nearest(self, scope: str, vector: Array) -> list[tuple[Entry, float]]:
        """Some of the scope's entries with their similarities, the most similar one first."""
        graph = self._graphs.get(scope)
        if graph is None or graph.ndim != len(vector):
            return []
        found = graph.search(vector, _CANDIDATES)
        labels = [int(label) for label in found.keys]
        return [
            (self._entries[label], min(1.0, 1.0 - float(distance)))
            for label, distance in zip(labels, found.distances, strict=True)
            if label in self._entries
        ]

    def touch(self, entry: Entry) -> None:
        """Note that an entry was of use."""
        if entry.label in self._entries:
            self._entries.move_to_end(entry.label)

    def clear(self) -> None:
        """Forget all."""
        self._graphs.clear()
        self._entries.clear()
