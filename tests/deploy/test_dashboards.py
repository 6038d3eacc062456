"""The dashboards against a real Prometheus that watches a real gateway: no panel is without data."""

import asyncio
import shutil
import subprocess
import sys
import time

import httpx
import pytest

from demo.__main__ import play
from demo.stage import stage
from tests.kit.dashboards import boards, has_data, over_time, queries
from tests.kit.processes import ROOT

ACT = 6.0
SECONDS = 8 * ACT
"""Each of the six acts, the pause after them, and the first act again."""


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """The URL of a Prometheus that has watched the demo, and the times between which it did."""
    if shutil.which("prometheus") is None:
        pytest.skip("no prometheus here: apt-get install prometheus, or put it on the PATH")
    with stage(tmp_path_factory.mktemp("demo")) as scene:
        started = time.time()
        asyncio.run(play(scene, ACT, SECONDS))
        yield scene.prometheus, (started, time.time())


def test_the_json_is_what_the_script_writes():
    script = ROOT / "deploy/grafana/generate.py"
    done = subprocess.run([sys.executable, script, "--check"], check=False)
    assert done.returncode == 0, "run python deploy/grafana/generate.py"


def test_panels_have_titles_units_and_room():
    for name, board in boards().items():
        assert board["uid"] == f"tidegate-{name}"
        for panel in board["panels"]:
            assert panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


@pytest.mark.parametrize(
    "asked", queries(), ids=lambda asked: f"{asked.board}: {asked.panel}: {asked.legend}"
)
def test_every_query_has_data(watched, asked):
    url, between = watched
    assert has_data(over_time(url, asked.expr, between)), asked.expr


def test_rules_are_evaluated_without_an_error(watched):
    url, _ = watched
    groups = httpx.get(f"{url}/api/v1/rules").json()["data"]["groups"]
    health = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
    assert len(health) > 15
    assert set(health.values()) == {"ok"}, health
