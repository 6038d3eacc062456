"""``make demo`` as a person uses it: it says where to look, and Ctrl-C ends all of it."""

import re
import signal

import httpx

from tests.kit.processes import PATIENCE, alive, descendants, eventually, started


def test_it_starts_says_where_to_look_and_ends_at_ctrl_c(tmp_path):
    with started(["-m", "demo", "--no-local", "--act", "1"], tmp_path / "demo.log") as demo:
        url = demo.line_with(r"Gateway +(\S+)/v1")[1]
        demo.line_with(r"\d\d:\d\d:\d\d  alpha says that it is busy")
        demo.line_with(r"\d\d:\d\d:\d\d  beta breaks off")
        metrics = eventually(lambda: _answered(url))
        assert set(re.findall(r'tidegate_tier_requests_total\{.*tier="(\w+)"', metrics)) == {
            "pro",
            "plus",
            "free",
        }
        running = descendants(demo.pid)
        assert len(running) > 4
        demo.signal(signal.SIGINT)
        assert demo.wait() == 0
        assert "Everything is stopped." in demo.log()
        assert "Traceback" not in demo.log()
        eventually(lambda: not any(alive(child) for child in running))


def _answered(url):
    text = httpx.get(f"{url}/metrics", timeout=PATIENCE).text
    tiers = set(re.findall(r'tidegate_tier_requests_total\{blame="nobody",tier="(\w+)"\} [1-9]', text))
    return text if len(tiers) == 3 else None
