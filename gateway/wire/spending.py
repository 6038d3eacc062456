"""The headers of a whole answer that tell what it cost, in dollars, and what it took of energy, in joules."""

from gateway import energy, prices

_SOURCES = (b"estimated", b"measured")


def headers(cost: int | None, spent: energy.Spent | None) -> list[tuple[bytes, bytes]]:
    """Those that are known; what took nothing, as an answer of the cache, has no source."""
    told = []
    if cost is not None:
        told.append((b"x-tidegate-cost", b"%d.%09d" % divmod(cost, prices.UNIT)))
    if spent is not None:
        told.append((b"x-tidegate-energy-j", b"%d.%06d" % divmod(spent.amount, energy.UNIT)))
        if spent.amount:
            told.append((b"x-tidegate-energy-source", _SOURCES[spent.measured]))
    return told
