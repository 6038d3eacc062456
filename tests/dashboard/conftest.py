"""A gateway of two workers, and a real browser in front of its live page."""

import json
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.kit import processes
from tests.kit.processes import ADMIN_KEY, CLIENT_KEY, UPSTREAM_KEY, eventually
from tests.kit.workers import each, status

expect.set_options(timeout=processes.PATIENCE * 1000)
FREE_KEY = "tg-test-free-key-0123456789"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="session")
def upstream(tmp_path_factory):
    with processes.faulty_upstream(tmp_path_factory.mktemp("upstream")) as running:
        yield running


def configuration(upstream, folder, **sections):
    provider = {"preset": "vllm", "base_url": f"{upstream.url}/v1", "api_key": UPSTREAM_KEY}
    once = {"retries": {"attempts": 1}}
    return processes.settings(
        upstream.url,
        folder / "tidegate.db",
        providers={"frail": provider, "sound": provider},
        models={
            "frail": {"route": ["frail/ok-today"], **once},
            "both": {"route": ["frail/ok-today", "sound/ok"], "cache": {"exact": "1h"}},
        },
        tiers={"free": {"limits": {"requests": "1000/minute"}, "queue": {"max_wait": "5s"}}},
        keys=[
            {"name": "client", "key": CLIENT_KEY, "tenant": "acme"},
            {"name": "free", "key": FREE_KEY, "tenant": "hobby", "tier": "free"},
        ],
        **sections,
    )


@pytest.fixture(scope="session")
def gateway(upstream, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    upstream.behave("ok-today", "ok")
    with processes.gateway(folder, configuration(upstream, folder), "--workers", "2") as running:
        yield running
        log = running.log()
    assert "Traceback" not in log, log
    assert ADMIN_KEY not in log


@pytest.fixture(scope="session")
def keys(gateway):
    """An admin key of each role, known to all workers."""
    with gateway.admin() as admin:
        made = {
            role: admin.post("/admin/keys", json={"name": role, "tenant": "ops", "role": role}).json()["key"]
            for role in ("viewer", "operator")
        }
    for key in made.values():
        known_everywhere(gateway, key)
    return made


def events(answer):
    """The views that a stream of events tells."""
    return (
        json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line.startswith("data: ")
    )


def known_everywhere(gateway, key):
    """Wait until the key opens the admin API at each worker."""
    for _ in each(gateway):
        eventually(lambda: status(gateway, key, "/admin/models") == 200)


@pytest.fixture(scope="module")  # while it runs, no other event loop can run in this thread
def browser():
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, _NAMES)), None)
        path = found or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip(
                "there is no Chromium: install the package chromium, or run 'playwright install chromium'"
            )
        with playwright.chromium.launch(executable_path=path, args=["--no-sandbox"]) as running:
            yield running


@pytest.fixture
def visit(browser, gateway):
    """Open the page in a browser without a past; in the end it may not have complained or asked elsewhere."""
    opened, complaints, asked = [], [], set()

    def open_page(key=None, scheme="light", expected=()):
        context = browser.new_context(color_scheme=scheme, viewport={"width": 1360, "height": 900})
        opened.append(context)
        page = context.new_page()
        page.set_default_timeout(processes.PATIENCE * 1000)
        page.on("request", lambda request: asked.add("/".join(request.url.split("/")[:3])))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda said: (
                complaints.append(said.text)
                if said.type in {"error", "warning"} and not any(each in said.text for each in expected)
                else None
            ),
        )
        page.goto(f"{gateway.url}/dashboard")
        if key is not None:
            page.get_by_label("Admin key").fill(key)
            page.get_by_role("button", name="Sign in").click()
        return page

    yield open_page
    for context in opened:
        context.close()
    assert not complaints
    assert asked == {gateway.url}
