"""English text that every CPython carries, so that compression needs no network and can be repeated.

What a form is fitted to, the docstrings of the standard library, is not what it is judged by, the prose of
the language reference (pydoc_data). Both are under the PSF licence.
"""

import pydoc_data.topics
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from local_backend.serve.tokenizer import Tokenizer

_SHORTEST_PROSE, _SHORTEST_DOCSTRING = 150, 120
_MANY_TICKS = 6
_QUOTED = re.compile(r'"""(.+?)"""', re.DOTALL)


def prose() -> list[str]:
    """The language reference: paragraphs of whole sentences, without grammar, tables and examples."""
    everything = "\n\n".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    return [
        part
        for part in _paragraphs(everything)
        if len(part) > _SHORTEST_PROSE and part.count("`") < _MANY_TICKS and "::=" not in part
    ]


def docstrings() -> list[str]:
    """The standard library's docstrings, the same way, without what the language reference has too."""
    root = Path(sysconfig.get_paths()["stdlib"])
    judged = set(prose())
    found: dict[str, None] = {}
    for path in sorted([*root.glob("*.py"), *root.glob("*/*.py")]):
        if path.parent.name not in ("site-packages", "dist-packages", "test", "idlelib"):
            found |= dict.fromkeys(_docstring_paragraphs(path))
    return [part for part in found if len(part) > _SHORTEST_DOCSTRING and part not in judged]


def windows(tokenizer: Tokenizer, paragraphs: list[str], length: int) -> list[Tensor]:
    """Token ids, int64 [length] each; every second paragraph stands as a question in the chat template."""
    ids: list[int] = []
    for index, part in enumerate(paragraphs):
        if index % 2:
            ids += tokenizer.encode(part + "\n\n")
        else:
            ids += tokenizer.encode_chat([{"role": "user", "content": part}])
    return [torch.tensor(ids[at : at + length]) for at in range(0, len(ids) - length + 1, length)]


def spread(items: list[Tensor], count: int) -> list[Tensor]:
    """At most `count` of them, evenly over all."""
    return items[:: max(len(items) // count, 1)][:count]


def _docstring_paragraphs(path: Path) -> Iterator[str]:
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    for quoted in _QUOTED.findall(source):
        yield from _paragraphs(quoted)


def _paragraphs(text: str) -> list[str]:
    parts = (re.sub(r"\s+", " ", part).strip() for part in re.split(r"\n\s*\n", text))
    return [
        part
        for part in dict.fromkeys(parts)
        if part and part[0].isupper() and part.endswith(".") and ">>>" not in part and "::" not in part
    ]
