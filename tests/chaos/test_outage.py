"""One of three upstreams goes away under load and comes back: no client notices, and it isn't run over."""

import asyncio
import signal
import time
from contextlib import ExitStack
from itertools import count

import httpx
import pytest

from tests.chaos.scene import TIMEOUTS
from tests.kit import answers, processes
from tests.kit.chat import CHAT, PROMPT, messages_of, text_of
from tests.kit.ports import free_port

TOKENS = 12
MODEL = f"tide/ok:tokens={TOKENS},gap=0.01"
RATE = 20.0
HEALTHY, OUT, WATCHED = 2.0, 8.0, 4.0
LONGEST_RETURN = 30.0
BACK = 3
"""So many calls show that it is in rotation: two trials, and one after them."""


class Load:
    """An open loop: a call is due every 1 / RATE seconds, whatever became of those before it."""

    def __init__(self, gateway):
        self._gateway = gateway
        self._calls = set()
        self.whole = 0
        self.errors = []

    async def run(self, over):
        options = {"base_url": self._gateway.url, "verify": False, "timeout": processes.PATIENCE}
        headers = {"authorization": f"Bearer {processes.CLIENT_KEY}"}
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with httpx.AsyncClient(headers=headers, **options) as client:
            for number in count():
                await asyncio.sleep(max(0.0, started + number / RATE - loop.time()))
                if over.is_set():
                    break
                task = asyncio.create_task(self._call(client, stream=number % 4 > 0))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)
            await asyncio.gather(*self._calls)

    async def _call(self, client, *, stream):
        messages = [{"role": "user", "content": PROMPT}]
        body = {"model": MODEL, "messages": messages, "stream": stream}
        try:
            response = await client.post(CHAT, json=body)
        except httpx.HTTPError as error:
            self.errors.append(repr(error))
            return
        if response.status_code != 200:
            self.errors.append(response.text)
        elif stream:
            *messages, last = messages_of(response.text)
            self._count(last == "[DONE]" and text_of(messages), response.text)
        else:
            self._count(response.json()["choices"][0]["message"]["content"], response.text)

    def _count(self, text, body):
        if text == answers.text(TOKENS):
            self.whole += 1
        else:
            self.errors.append(body)
            assert '"error"' in body, f"a truncated answer passed for whole: {body}"


def upstream(folder, port):
    return processes.started(
        ["-m", "tests.kit.faulty_upstream", "--port", str(port)], folder / "upstream.log"
    )


def calls_of(url):
    """When each chat came, and how many probes did, on the clock that all processes share."""
    seen = httpx.get(f"{url}/_seen", verify=False).json()
    return [one["arrived"] for one in seen if one["method"] == "POST"], sum(
        one["method"] == "GET" for one in seen
    )


@pytest.fixture
def three(tmp_path, balance):
    """Three upstreams' folders and URLs, what is to be stopped, and the gateway before them."""
    with ExitStack() as stack:
        folders, running, urls = [], [], []
        for name in ("one", "two", "three"):
            folder = tmp_path / name
            folder.mkdir()
            process = stack.enter_context(upstream(folder, free_port()))
            folders.append(folder)
            running.append(process)
            urls.append(process.line_with(r'"listening": "([^"]+)"')[1])
        providers = {
            name: {"preset": "vllm", "base_url": f"{url}/v1"}
            for name, url in zip(("one", "two", "three"), urls, strict=True)
        }
        model = {"route": [["one/*", "two/*", "three/*"]], "timeouts": TIMEOUTS, "balance": balance}
        config = {
            "server": {"port": 0},
            "admin": {"key": processes.ADMIN_KEY},
            "database": f"sqlite:///{tmp_path / 'keys.db'}",
            "providers": providers,
            "models": {"tide/*": model},
            "keys": [{"name": "client", "key": processes.CLIENT_KEY, "tenant": "acme"}],
        }
        gateway = stack.enter_context(processes.gateway(tmp_path, config))
        yield stack, folders[0], running[0], urls, gateway
        running[0].signal(signal.SIGCONT)  # so that it can end


# Balanced by weight it is ejected, tried and let in by and by; by latency it is shunned until it is looked
# at again, and then takes its share.
@pytest.mark.parametrize(
    ("how", "balance", "gentle"), [("killed", "weighted", 5), ("frozen", "latency", RATE * 0.6)]
)
async def test_one_of_three_goes_away_and_comes_back(three, how, gentle):
    stack, folder, victim, urls, gateway = three
    load, over = Load(gateway), asyncio.Event()
    running = asyncio.create_task(load.run(over))
    await asyncio.sleep(HEALTHY)
    before, _ = await asyncio.to_thread(calls_of, urls[0])
    if how == "killed":
        victim.signal(signal.SIGKILL)
        victim.wait()
    else:
        victim.signal(signal.SIGSTOP)
    await asyncio.sleep(OUT)
    recovered = time.monotonic()
    if how == "killed":
        again = stack.enter_context(upstream(folder, port=int(urls[0].rpartition(":")[2])))
        await asyncio.to_thread(again.line_with, "listening")
    else:
        victim.signal(signal.SIGCONT)
        await asyncio.sleep(0.5)  # what waited in its sockets is no new call
        recovered = time.monotonic()

    async def after_recovery():
        chats, probes = await asyncio.to_thread(calls_of, urls[0])
        return [at - recovered for at in chats if at > recovered], probes

    while len((await after_recovery())[0]) < BACK:
        assert time.monotonic() < recovered + LONGEST_RETURN, "not back in rotation"
        await asyncio.sleep(0.25)
    await asyncio.sleep(WATCHED)
    over.set()
    await running

    chats, probes = await after_recovery()
    total = load.whole + len(load.errors)
    back = chats[BACK - 1]
    first_second = sum(at < chats[0] + 1 for at in chats)
    watched = sum(back <= at < back + WATCHED for at in chats)
    print(  # noqa: T201 - figures are asked for
        f"\n{how}: {load.whole} of {total} whole; back {back:.1f} s after its recovery; {probes} free "
        f"probes; {first_second} calls in its first second, {watched} in the {WATCHED:.0f} s after it was "
        f"back, of {RATE * WATCHED:.0f} in all"
    )
    assert len(before) > HEALTHY * RATE / 10, "it took no part before"
    assert load.whole / total >= 0.999, load.errors[:3]
    assert back <= LONGEST_RETURN
    assert first_second <= gentle, "a stampede"
    assert watched <= gentle * WATCHED, "more than its share"
    assert probes <= 3
