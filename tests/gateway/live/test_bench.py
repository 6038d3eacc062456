"""``tidegate bench`` over real sockets, against a faulty upstream and through a gateway."""

import json
import os
import signal
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from tests.kit.processes import ADMIN_KEY, CLIENT_KEY, PATIENCE, ROOT, eventually

WIDE = {"NO_COLOR": "1", "COLUMNS": "200"}


def run(*argv, **environ):
    return CliRunner().invoke(app, ["bench", *argv], env={**WIDE, **environ})


@pytest.fixture
def bench(upstream, tmp_path):
    """Run it, and read its JSON."""

    def call(model, *argv, url=upstream.url, **environ):
        file = tmp_path / "run.json"
        done = run(url, "--model", model, "--json", str(file), *argv, **environ)
        assert "Traceback" not in done.stderr
        return done, json.loads(file.read_bytes()) if file.exists() else None

    return call


def test_a_run_through_a_gateway(bench, gateway, tmp_path):
    picture = tmp_path / "run.svg"
    done, told = bench(
        "fake/ok:tokens=5",
        *("--rate", "40", "--requests", "20", "--slo", "ttft=30s,itl=30s", "--picture", str(picture)),
        url=gateway.url,
        TIDEGATE_KEY=CLIENT_KEY,
    )
    assert done.exit_code == 0, done.stderr
    summary = told["summary"]
    assert (summary["answered"], summary["kept_slo"], summary["errors"]) == (20, 20, {})
    assert (summary["output_tokens"], summary["prompt_tokens"]) == (100, 140)
    for request in told["requests"]:
        assert request["due"] <= request["sent"] < request["first"] <= request["last"] <= request["ended"]
    assert "20 of 20" in done.stdout
    assert "open loop, 40 requests/s" in done.stdout
    assert ET.parse(picture).getroot().tag.endswith("svg")
    written = done.stdout + done.stderr + json.dumps(told) + picture.read_text(encoding="utf-8")
    assert CLIENT_KEY not in written


def test_the_model_is_asked_for_where_none_is_named(gateway):
    done = run(gateway.url, "--requests", "2", TIDEGATE_KEY=CLIENT_KEY)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("plain at ")


FAULTS = [
    ("cut:at=3,how=rst", "truncated stream", 4),
    ("cut:at=3,how=done", "truncated stream", 4),
    ("malformed:at=2", "malformed chunk", 4),
    ("status:code=500", "HTTP 500", 0),
    ("nonsense", "HTTP 404 model_not_found", 0),
    ("html", "not a stream but text/html", 0),
]


@pytest.mark.parametrize(("behaviour", "fault", "truncated"), FAULTS)
def test_what_fails_is_counted_by_its_kind(bench, behaviour, fault, truncated):
    done, told = bench(f"fake/{behaviour}", "--requests", "4", "--slo", "ttft=1m")
    assert (done.exit_code, told["summary"]["answered"], told["summary"]["kept_slo"]) == (1, 0, 0)
    assert told["summary"]["truncated"] == truncated
    ((name, count),) = told["summary"]["errors"].items()
    assert (name.startswith(fault), count) == (True, 4), name
    assert name in done.stdout
    assert done.stderr == "tidegate: no request was answered\n"


def test_a_stall_ends_at_the_timeout(bench):
    _, told = bench("fake/stall:at=2", "--requests", "2", "--timeout", "2s")
    assert told["summary"]["errors"] == {"timeout": 2}
    assert told["summary"]["truncated"] == 2


def test_retry_after_is_an_error_or_obeyed(bench):
    busy = "status:code=429,after=1,times=1"
    _, told = bench(f"refused/{busy}", "--requests", "1")
    assert told["summary"]["answered"] == 0
    done, told = bench(f"obeyed/{busy}", "--requests", "1", "--obey-retry-after")
    assert (done.exit_code, told["summary"]["answered"], told["summary"]["postponed"]) == (0, 1, 1)
    (request,) = told["requests"]
    assert request["first"] - request["due"] >= 1.0
    assert "told to come back" in done.stdout


def test_nobody_at_home(bench):
    done, told = bench("any", "--requests", "2", url="http://127.0.0.1:9")
    assert done.exit_code == 1
    ((name, count),) = told["summary"]["errors"].items()
    assert (name.startswith("can't connect"), count) == (True, 2)
    done = run("http://127.0.0.1:9")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("tidegate: can't reach http://127.0.0.1:9/v1")


WRONG = [
    (["--rate", "5", "--concurrency", "2"], "not both"),
    (["--slo", "fast"], "ttft=1s"),
    (["--duration", "5"], "with its unit"),
    (["--timeout", "5"], "with its unit"),
    (["--output-tokens", "9-3"], "smaller number first"),
    (["--picture", "run.png"], ".svg"),
    (["--json", "nowhere/run.json"], "no directory nowhere"),
]


@pytest.mark.parametrize(("argv", "word"), WRONG)
def test_a_wrong_option_is_exit_code_2(argv, word):
    done = run("http://127.0.0.1:9", "--model", "x", *argv)
    assert (done.exit_code, done.stdout) == (2, "")
    assert word in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080", "http://", "http://[::1", "http://127.0.0.1:99999", "http://a..b"]
)
def test_what_is_no_address_is_exit_code_2(url):
    done = run(url, "--model", "x")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "write the server's address" in " ".join(done.stderr.replace("│", " ").split())


def test_a_server_that_is_no_api_is_told_in_one_line(gateway):
    page = f"{gateway.url}/dashboard?"  # HTML, whatever comes behind the question mark
    done = run(page, TIDEGATE_KEY=ADMIN_KEY)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == f"tidegate: {page}/models lists no model\n"


def test_ctrl_c_reports_what_came_until_then(upstream):
    model = "interrupted/ok:tokens=2"
    argv = [sys.executable, "-m", "gateway", "bench", upstream.url, "--model", model, "--duration", "10m"]
    with subprocess.Popen(
        [*argv, "--rate", "50"], cwd=ROOT, env={**os.environ, **WIDE}, stdout=subprocess.PIPE
    ) as running:
        try:
            eventually(lambda: any(model in seen["raw"] for seen in upstream.seen_all()))
            running.send_signal(signal.SIGINT)
            told, _ = running.communicate(timeout=PATIENCE)
        finally:
            running.kill()
    assert b"answered whole" in told
