"""Lost updates (RFC 9110, 13.1; RFC 6585, 3): who changes something says which state of it was meant.

Two operators who read the same tier and both change it would otherwise undo each other unseen.
"""

import re
from dataclasses import dataclass
from typing import Annotated

from fastapi import Header
from starlette.exceptions import HTTPException

_TAGS = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_ANY = "*"


@dataclass(frozen=True, slots=True)
class Preconditions:
    """The states of what is changed that the request is meant for, as its headers give them."""

    if_match: str | None
    if_none_match: str | None

    def check(self, tag: str | None) -> None:
        """Raise 428 or 412 unless the request is meant for the state ``tag``; None: there is nothing yet."""
        if self.if_match is not None and not _names(self.if_match, tag):
            state = "It doesn't exist." if tag is None else f"Its ETag is {tag} now; read it again."
            raise HTTPException(412, f"If-Match names another state. {state}")
        if self.if_none_match is not None and _names(self.if_none_match, tag):
            raise HTTPException(412, "It exists already, and If-None-Match asked that it should not.")
        if tag is not None and self.if_match is None:
            raise HTTPException(
                428, f"It exists: send If-Match with the ETag of the state that you change, now {tag}."
            )


def _names(header: str, tag: str | None) -> bool:
    """Whether a header's list holds this state; a weak tag never does, since it may stand for several."""
    if tag is None:
        return False
    return header.strip() == _ANY or tag in _TAGS.findall(header)


def preconditions(
    if_match: Annotated[
        str | None, Header(description="The ETag of the state to change; * for any.", examples=['"7"'])
    ] = None,
    if_none_match: Annotated[
        str | None, Header(description="* to create only what doesn't exist yet.", examples=["*"])
    ] = None,
) -> Preconditions:
    """Dependency: the preconditions of a request."""
    return Preconditions(if_match, if_none_match)
