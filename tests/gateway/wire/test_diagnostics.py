from gateway.wire import diagnostics
from policies.service import Attempt, Reply
from tests.kit.upstream import make_call


def told(call=None, reply=None, first_event=None):
    return dict(diagnostics.headers("req_1", call, reply, first_event))


def test_of_what_never_became_a_call_the_id_is_told():
    assert told() == {b"x-request-id": b"req_1"}


def test_who_failed_and_how_and_not_who_is_still_asked():
    call = make_call()
    call.attempts += [
        Attempt("a", "m", "UpstreamBusy"),
        Attempt("b", "m", "UpstreamTimeout"),
        Attempt("c", "m"),
    ]
    assert told(call) == {
        b"x-request-id": b"req_1",
        b"x-tidegate-attempts": b"3",
        b"x-tidegate-why": b"a=UpstreamBusy, b=UpstreamTimeout",
    }


def test_who_answered_and_when():
    call = make_call()
    call.queued = 0.25
    call.attempts.append(Attempt("a", "m", first_event=0.5))
    assert told(call, Reply("a", "modèle\n"), 0.8) == {
        b"x-request-id": b"req_1",
        b"x-tidegate-attempts": b"1",
        b"openai-processing-ms": b"800",
        b"x-tidegate-upstream": b"a",
        b"x-tidegate-model": b"mod%C3%A8le%0A",
        b"x-tidegate-queue-ms": b"250.000",
        b"x-tidegate-overhead-ms": b"50.000",
    }
