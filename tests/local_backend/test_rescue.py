"""A stream that breaks at one server is carried on by another, and says what it would have said."""

from pathlib import Path
from typing import Any

import openai

from tests.kit import processes
from tests.local_backend.server_process import ServerProcess

MODEL = "smollm2-135m-moe"
QUESTION: dict[str, Any] = {
    "model": "tide",
    "messages": [{"role": "user", "content": "Tell me how the tide comes about."}],
    "temperature": 0,
    "max_tokens": 60,
}


def text_of(chunk: Any) -> str:
    return (chunk.choices[0].delta.content or "") if chunk.choices else ""


def test_a_killed_servers_answer_is_finished_word_for_word(
    real_server: ServerProcess, tmp_path: Path
) -> None:
    whole = real_server.client().chat.completions.create(**{**QUESTION, "model": MODEL})
    with ServerProcess("--cache-memory", "0.5") as doomed:
        config = processes.settings("http://127.0.0.1:9", tmp_path / "keys.db")
        config["providers"] = {
            name: {"preset": "llama.cpp", "base_url": f"{server.url}/v1"}
            for name, server in (("doomed", doomed), ("survivor", real_server))
        }
        config["models"] = {"tide": {"route": [f"doomed/{MODEL}", f"survivor/{MODEL}"]}}
        with processes.gateway(tmp_path, config) as gateway:
            client = openai.OpenAI(
                base_url=f"{gateway.url}/v1", api_key=processes.CLIENT_KEY, max_retries=0, timeout=60
            )
            stream = client.chat.completions.create(
                **QUESTION, stream=True, stream_options={"include_usage": True}
            )
            heard, usage = "", None
            for chunk in stream:
                heard += text_of(chunk)
                usage = chunk.usage or usage
                if len(heard) > 40 and doomed.process.poll() is None:
                    doomed.process.kill()
                    doomed.process.wait()
            client.close()
            with gateway.admin() as admin:
                metrics = admin.get("/metrics").text
    assert doomed.process.poll() is not None
    assert heard == whole.choices[0].message.content
    assert usage is not None
    assert whole.usage is not None
    assert usage.total_tokens == whole.usage.total_tokens
    assert 'outcome="continued"' in metrics
