"""The headers that tell what the gateway did: attempts, limits, cache, who answered and how soon."""

from urllib.parse import quote

from gateway.wire import cachestatus, ratelimits
from policies.service import Call, Reply


def headers(
    request_id: str, call: Call | None, reply: Reply | None, first_event: float | None
) -> list[tuple[bytes, bytes]]:
    """What is known of a request so far; ``first_event`` is in seconds since it came."""
    told = [(b"x-request-id", request_id.encode())]
    if call is None:
        return told
    told.append((b"x-tidegate-attempts", b"%d" % len(call.attempts)))
    failed = [f"{attempt.upstream}={attempt.outcome}" for attempt in call.attempts if attempt.failed]
    if failed:
        told.append((b"x-tidegate-why", ", ".join(failed).encode()))
    if call.allowances:
        told += ratelimits.headers(call.allowances)
    if reply is None:
        return told
    if reply.cached is not None:
        told += cachestatus.headers(reply.cached, call.fingerprint)
    if first_event is not None:
        told += [
            (b"openai-processing-ms", b"%d" % round(first_event * 1000)),
            (b"x-tidegate-upstream", _visible(reply.upstream)),
            (b"x-tidegate-model", _visible(reply.model)),
            (b"x-tidegate-queue-ms", b"%.3f" % (call.queued * 1000)),
            (b"x-tidegate-overhead-ms", b"%.3f" % (call.overhead(first_event) * 1000)),
        ]
    return told


def _visible(text: str) -> bytes:
    """``text``, percent-encoded unless it is visible ASCII: a model's name may be any word of a client's."""
    return (text if text.isascii() and text.isprintable() else quote(text)).encode()
