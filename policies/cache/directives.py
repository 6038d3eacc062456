"""What a request's Cache-Control asks of the cache (RFC 9111, section 5.2.1)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Directives:
    """``max_age`` is in seconds.

    no-store keeps the call out of the cache altogether; no-cache has it answered anew, and stored;
    only-if-cached never asks an upstream; max-age takes no answer that is older, nor a stale one.
    """

    no_store: bool = False
    no_cache: bool = False
    only_if_cached: bool = False
    max_age: float | None = None

    @property
    def invites(self) -> bool:
        """Whether the caller itself says that an answer of before will do."""
        return self.only_if_cached or bool(self.max_age)


UNSAID = Directives()


def parse(header: str) -> Directives:
    """Read the header; what isn't known is passed over, and an age that is no number counts as 0."""
    said = {}
    for part in header.split(","):
        name, _, value = part.partition("=")
        said[name.strip().lower()] = value.strip().strip('"')
    age = said.get("max-age")
    seconds = None if age is None else float(age) if age.isascii() and age.isdigit() else 0.0
    return Directives(
        no_store="no-store" in said,
        no_cache="no-cache" in said or seconds == 0,
        only_if_cached="only-if-cached" in said,
        max_age=seconds,
    )
