"""Replayed answers by the official Python SDK: what it makes of them is what it made of the first one."""

import openai
import pytest

from tests.kit import processes
from tests.kit.chat import new_id
from tests.kit.processes import CLIENT_KEY

TOOLS = [{"type": "function", "function": {"name": "tide_table", "parameters": {"type": "object"}}}]
BEHAVIOURS = ["ok", "ok:tokens=40", "reasoning", "tools"]


@pytest.fixture(scope="module")
def client(upstream, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cached")
    models = {"kept/*": {"route": ["up/*"], "cache": {}}}
    config = processes.settings(
        upstream.url,
        folder / "keys.db",
        models=models,
        server={"ping": "10s"},
        cache={"path": str(folder / "cache.db")},
    )
    with (
        processes.gateway(folder, config) as running,
        openai.OpenAI(base_url=f"{running.url}/v1", api_key=CLIENT_KEY, max_retries=0) as client,
    ):
        yield client


def asked(client, behaviour, text, *, stream):
    """The cache's state and the message that the SDK puts together, whichever way it was sent."""
    chat = client.chat.completions
    options = {
        "model": f"kept/{behaviour}",
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "tools": TOOLS if behaviour == "tools" else openai.omit,
    }
    if stream:
        with chat.stream(**options, stream_options={"include_usage": True}) as events:
            for _ in events:
                pass
            completion = events.get_final_completion()
            state = events.response.headers["x-tidegate-cache"] if hasattr(events, "response") else None
    else:
        response = chat.with_raw_response.create(**options)
        completion, state = response.parse(), response.headers["x-tidegate-cache"]
    (choice,) = completion.choices
    message = choice.message
    calls = [
        (call.id, call.type, call.function.name, call.function.arguments) for call in message.tool_calls or ()
    ]
    told = (
        message.role,
        message.content or "",
        getattr(message, "reasoning_content", None) or "",
        calls,
        choice.finish_reason,
        completion.usage.total_tokens,
        (completion.id, completion.created),
    )
    return state, told


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
@pytest.mark.parametrize("first", [False, True])
def test_a_replay_is_the_same_to_the_last_byte(client, upstream, behaviour, first):
    text = new_id()
    _, fresh = asked(client, behaviour, text, stream=first)
    before = len(upstream.seen_all())
    for stream in (False, True, False, True):
        state, replayed = asked(client, behaviour, text, stream=stream)
        assert state in {"hit", None}
        assert replayed == fresh
    assert len(upstream.seen_all()) == before


def test_the_sdk_reads_not_cached_as_an_error(client):
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(
            model="kept/ok",
            messages=[{"role": "user", "content": new_id()}],
            temperature=0,
            extra_headers={"cache-control": "only-if-cached"},
        )
    assert (caught.value.status_code, caught.value.code) == (504, "not_cached")
