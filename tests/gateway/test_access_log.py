import contextlib
import io
import json
from pathlib import Path

from gateway.access_log import AccessLog, AccessRecord
from policies.service import Attempt, Usage
from tests.kit.upstream import make_call


def written(record):
    stream = io.BytesIO()
    AccessLog(stream, lambda _, flush: flush()).write(record, 1_700_000_000.5)
    line = stream.getvalue()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    return json.loads(line)


def test_a_request_that_became_no_call():
    line = written(AccessRecord("req_1", "GET", "/v1/models", 401, "refused", 0.0012))
    assert line == {
        "time": "2023-11-14T22:13:20.500000+00:00",
        "request_id": "req_1",
        "method": "GET",
        "path": "/v1/models",
        "status": 401,
        "outcome": "refused",
        "duration_ms": 1.2,
    }


def test_a_call_with_its_history():
    call = make_call(id="req_2", tenant="acme", tier="pro")
    call.attempts += [Attempt("a", "m", "UpstreamBusy", 0.5), Attempt("b", "m2", "ok", 2, 0.25)]
    line = written(
        AccessRecord(
            "req_2", "POST", "/v1/chat/completions", 200, "ok", 2.5, "key_1", call, 0.75, "b", Usage(3, 9)
        )
    )
    assert (line["key"], line["tenant"], line["tier"], line["model"]) == ("key_1", "acme", "pro", "m")
    assert (line["upstream"], line["first_event_ms"]) == ("b", 750)
    assert (line["input_tokens"], line["output_tokens"]) == (3, 9)
    assert line["attempts"] == [
        {"upstream": "a", "model": "m", "outcome": "UpstreamBusy", "duration_ms": 500},
        {"upstream": "b", "model": "m2", "outcome": "ok", "duration_ms": 2000},
    ]


def test_its_trace_is_in_it_where_it_has_one():
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    assert written(AccessRecord("req_1", "POST", "/v1/x", 200, "ok", 1, trace=trace))["trace_id"] == trace


def test_the_prompt_is_not_in_it():
    secret = "tell nobody"
    call = make_call(body={"model": "m", "messages": [{"role": "user", "content": secret}], "user": secret})
    assert secret not in json.dumps(written(AccessRecord("r", "POST", "/v1/x", 200, "ok", 1, call=call)))


def test_a_line_stays_one_line_whatever_a_model_is_called():
    line = written(AccessRecord("r", "POST", "/v1/x", 404, "ok", 1, call=make_call(model='a\n"b"\u2028')))
    assert line["model"] == 'a\n"b"\u2028'


def test_a_log_that_cannot_be_written_says_so_once_and_harms_nobody(caplog):
    with contextlib.suppress(OSError), Path("/dev/full").open("wb") as full:
        log = AccessLog(full, lambda _, flush: flush())
        for _ in range(3):
            log.write(AccessRecord("req_1", "GET", "/v1/models", 401, "refused", 0.0012), 0.0)
        assert [record.message for record in caplog.records] == [
            "the access log can't be written: [Errno 28] No space left on device"
        ]
