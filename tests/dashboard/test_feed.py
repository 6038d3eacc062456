"""The events without a browser: who may listen, when they end, and what crosses origins."""

import hashlib
import signal
import zipfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from gateway.dashboard.live import MOST_LISTENERS
from tests.dashboard.conftest import configuration, events, known_everywhere
from tests.kit import processes
from tests.kit.processes import ADMIN_KEY, ROOT, eventually

STATIC = ROOT / "gateway" / "dashboard" / "static"
VENDORED = [STATIC / "vendor", Path(__file__).parent / "vendor"]


def test_the_events_tell_of_all_workers(gateway):
    with gateway.admin() as admin, admin.stream("GET", "/admin/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        view = next(view for view in events(answer) if view["workers"] == 2)
    assert view["of"] == 2
    seen = {upstream["name"]: upstream for upstream in view["upstreams"]}
    assert sum(seen["sound/ok"]["states"].values()) == 2


def test_listeners_are_bounded_and_end_with_the_worker(upstream, tmp_path):
    with processes.gateway(tmp_path, configuration(upstream, tmp_path, server={"drain": "60s"})) as running:
        with ExitStack() as stack, running.admin() as admin:
            answers = [
                stack.enter_context(admin.stream("GET", "/admin/events")) for _ in range(MOST_LISTENERS)
            ]
            followed = [events(answer) for answer in answers]
            assert all(next(views)["of"] == 1 for views in followed)
            refused = admin.get("/admin/events")
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
            running.signal(signal.SIGTERM)
            assert all(isinstance(list(views), list) for views in followed)
        assert running.wait(processes.PATIENCE) == 0


def test_a_listener_goes_with_its_key(gateway):
    with gateway.admin() as admin:
        made = admin.post("/admin/keys", json={"name": "v", "tenant": "t", "role": "viewer"}).json()
        known_everywhere(gateway, made["key"])
        with gateway.client(made["key"]) as viewer, viewer.stream("GET", "/admin/events") as answer:
            views = events(answer)
            next(views)
            assert admin.delete(f"/admin/keys/{made['id']}").status_code == 204
            list(views)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "same-origin"}, 202),
        ({"origin": "HERE"}, 202),
        ({"sec-fetch-site": "same-site", "origin": "HERE"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"origin": "https://elsewhere.example"}, 403),
        ({}, 403),
    ],
)
def test_a_change_by_cookie_comes_from_the_page_itself(gateway, headers, status):
    headers = {name: gateway.url if value == "HERE" else value for name, value in headers.items()}
    with gateway.client(key=None) as browser:
        entered = browser.post("/dashboard/sign-in", data={"key": ADMIN_KEY}, headers={"origin": gateway.url})
        assert entered.status_code == 303
        assert browser.get("/admin/tiers").status_code == 200
        eventually(lambda: browser.get("/admin/upstreams").json())
        assert browser.post("/admin/upstreams/sound/probe", headers=headers).status_code == status


def test_the_page_allows_nothing_but_its_own(gateway):
    with gateway.client(key=None) as browser:
        answer = browser.get("/dashboard")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert browser.get("/dashboard/events").status_code == 401


@pytest.mark.parametrize("folder", VENDORED, ids=str)
def test_vendored_files_are_those_that_were_published(folder):
    rows = [line.split("|") for line in (folder / "README.md").read_text(encoding="utf-8").splitlines()]
    hashes = {cells[1].strip(): cells[4].strip() for cells in rows if len(cells) == 6 and "." in cells[1]}
    assert hashes.keys() == {path.name for path in folder.iterdir() if path.suffix in {".js", ".css"}}
    for name, digest in hashes.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name


def test_the_wheel_has_the_page_in_it(tmp_path):
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    packed = set(zipfile.ZipFile(built).namelist())
    page = (ROOT / "gateway" / "dashboard").rglob("*")
    wanted = {path for path in page if "__pycache__" not in path.parts}
    missing = {str(path.relative_to(ROOT)) for path in wanted if path.is_file()} - packed
    assert not missing
