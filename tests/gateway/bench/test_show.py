import io
import json
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from gateway.bench.answer import MALFORMED, TRUNCATED, Answer
from gateway.bench.chart import Axis
from gateway.bench.picture import draw
from gateway.bench.plan import ClosedLoop, OpenLoop, Plan
from gateway.bench.prompts import Lengths
from gateway.bench.report import Run, document, seconds, table
from gateway.bench.slo import Slo
from tests.gateway.bench.test_measure import samples

SVG = "{http://www.w3.org/2000/svg}"
LENGTH = Lengths(10, 20)
loads = st.builds(OpenLoop, st.floats(0.1, 1000)) | st.builds(ClosedLoop, st.integers(1, 100))


@st.composite
def runs(draw):
    return Run(
        url="http://gateway/v1",
        model="fake/<ok>&[bold]",
        plan=Plan(draw(loads), 10, None, LENGTH, LENGTH, seed=0),
        slo=draw(st.none() | st.just(Slo(ttft=20.0, itl=1.0))),
        at="2026-11-23T01:00:00+00:00",
        began=0.0,
        ended=draw(st.floats(0.1, 500)),
        samples=draw(st.lists(samples(), max_size=30)),
    )


@given(runs())
def test_the_picture_has_a_dot_for_each_request(run):
    drawn = ET.fromstring(draw(run))
    dots = [each for each in drawn.iter(f"{SVG}circle") if "dot" in each.get("class")]
    assert len(dots) == len(run.samples)
    for dot in dots:
        assert 64 <= float(dot.get("cx")) <= 434
        assert 96 <= float(dot.get("cy")) <= 306


@given(runs())
def test_the_table_and_the_json_tell_the_same(run):
    console = Console(width=120, file=io.StringIO())
    console.print(table(run))
    shown = console.file.getvalue()
    told = json.loads(json.dumps(document(run)))
    assert f"{told['summary']['answered']:,} of {told['summary']['sent']:,}" in shown
    assert len(told["requests"]) == told["summary"]["sent"]
    assert ("goodput" in shown) == (told["slo"] is not None)
    assert run.model in shown
    for fault in told["summary"]["errors"]:
        assert fault in shown


@given(st.floats(min_value=1e-6, max_value=1e6))
def test_an_axis_reaches_its_largest_value_in_few_round_steps(largest):
    axis = Axis.over(largest)
    assert axis.most >= largest * (1 - 1e-6)
    assert 2 <= len(axis.ticks) <= 6
    assert axis.ticks[-1] == pytest.approx(axis.most)
    labels = [f"{tick:{axis.form}}" for tick in axis.ticks]
    assert all(earlier != later for earlier, later in pairwise(labels))


def test_an_axis_over_nothing_has_numbers_too():
    assert Axis.over(0.0) == Axis.over(5e-324)
    assert [f"{tick:{Axis.over(0.0).form}}" for tick in Axis.over(0.0).ticks] == [
        "0.00",
        "0.25",
        "0.50",
        "0.75",
        "1.00",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00 µs"),
        (2e-5, "20.0 µs"),
        (0.0123, "12.3 ms"),
        (0.5, "500 ms"),
        (1, "1.00 s"),
        (754.2, "754 s"),
    ],
)
def test_times_have_three_digits(value, text):
    assert seconds(value) == text


def read(*messages):
    answer = Answer()
    for number, message in enumerate(messages):
        answer.take(message if isinstance(message, bytes) else json.dumps(message).encode(), float(number))
    return answer


def chunk(finish=None, **delta):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def test_a_role_is_no_token_and_a_thought_is():
    answer = read(chunk(role="assistant", content=""), chunk(reasoning_content="Hm"), chunk(content="Hi"))
    assert (answer.first, answer.last, answer.output_tokens) == (1.0, 2.0, 2)
    assert answer.fault == TRUNCATED


def test_a_server_that_counts_its_tokens_is_believed():
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 40}}
    answer = read(chunk(content="a"), chunk(content="b"), chunk("stop"), usage, b"[DONE]")
    assert (answer.fault, answer.prompt_tokens, answer.output_tokens, answer.longest_gap) == ("", 9, 40, 1.0)


@pytest.mark.parametrize(
    "message", [b"{", b"7", b"null", b"[]", b'{"choices": {"delta": 7}}', b'{"usage": 3}']
)
def test_what_is_no_chunk_is_told(message):
    assert read(chunk(content="a"), message, chunk("stop")).fault == MALFORMED


def test_an_error_in_a_stream_is_told_by_its_code():
    error = {"error": {"message": "gone", "type": "server_error", "code": "upstream_stalled"}}
    assert read(chunk(content="a"), error).fault == "error in stream: upstream_stalled"
