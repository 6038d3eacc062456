"""``tidegate top``: one frame into a pipe, and the live view in a terminal of its own."""

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from gateway.cli import app
from tests.kit.chat import CHAT, chat
from tests.kit.processes import ADMIN_KEY, CLIENT_KEY, PATIENCE, ROOT, eventually


def once(url, key, *argv):
    return CliRunner().invoke(
        app,
        ["top", "--once", "--url", url, "--admin-key", key, *argv],
        env={"COLUMNS": "160", "NO_COLOR": "1"},
    )


@pytest.fixture(scope="module")
def viewer(gateway):
    with gateway.admin() as admin:
        made = admin.post("/admin/keys", json={"name": "eye", "tenant": "ops", "role": "viewer"})
        return made.raise_for_status().json()["key"]


def test_a_frame_for_a_viewer(gateway, viewer):
    with gateway.client() as client:
        assert client.post(CHAT, json=chat("ok")).status_code == 200

    def idle():
        done = once(gateway.url, viewer)
        assert (done.exit_code, done.stderr) == (0, "")
        return done if re.search(r"^ default +0 +0", done.stdout, re.MULTILINE) else None

    done = eventually(idle)
    assert "1 of 1 workers" in done.stdout
    assert re.search(r"\bup/fake/ok .*in rotation", done.stdout)
    assert "\x1b" not in done.stdout
    assert viewer not in done.stdout


def test_an_upstream_that_is_out_comes_first_and_says_why(launch):
    with launch() as running, running.client() as client, running.admin() as admin:
        for name in ("ok", "ok:tokens=2"):
            assert client.post(CHAT, json=chat(name)).status_code == 200
        admin.post("/admin/upstreams/up/fake/ok:tokens=2/drain").raise_for_status()

        def upstreams(*argv):
            lines = once(running.url, ADMIN_KEY, *argv).stdout.splitlines()
            return [line for line in lines if "up/fake/ok" in line]

        eventually(lambda: "drained by an operator" in upstreams()[0])
        assert "draining" in upstreams()[0]
        assert "in rotation" in upstreams("--sort", "name")[0]


def test_a_picture_loads_nothing(gateway, viewer, tmp_path):
    file = tmp_path / "top.svg"
    assert once(gateway.url, viewer, "--picture", str(file)).exit_code == 0
    svg = file.read_text(encoding="utf-8")
    assert "up/fake/ok" in svg
    assert set(re.findall(r"https?://[\w.-]+", svg)) <= {
        "http://www.w3.org",
        gateway.url.rpartition(":")[0],
        "https://www.textualize.io",
    }
    assert "@font-face" not in svg


@pytest.mark.parametrize(
    ("url", "key", "word"),
    [
        (None, CLIENT_KEY, "admin API"),
        (None, "tga-wrong", "unknown"),
        ("http://127.0.0.1:9", ADMIN_KEY, "can't reach"),
        ("nonsense", ADMIN_KEY, "can't reach"),
        (None, "schlüssel", "ASCII"),
    ],
)
def test_what_goes_wrong_is_one_line_and_exit_code_1(gateway, url, key, word):
    done = once(url or gateway.url, key)
    assert (done.exit_code, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("tidegate: ")
    assert word in line


class Terminal:
    """What a program wrote to a terminal, and the keys for it."""

    def __init__(self, master, popen):
        self._master = master
        self.popen = popen
        self._written = b""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        while True:
            try:
                self._written += os.read(self._master, 65536)
            except OSError:
                return

    def shows(self, text):
        eventually(lambda: text in self.text)

    @property
    def text(self):
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self._written.decode(errors="replace"))

    def press(self, keys):
        os.write(self._master, keys.encode())


@contextmanager
def terminal(url):
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, 150))
    before = termios.tcgetattr(slave)
    environ = {**os.environ, "TERM": "xterm-256color", "TIDEGATE_ADMIN_KEY": ADMIN_KEY, "TIDEGATE_URL": url}
    argv = [sys.executable, "-m", "gateway", "top"]
    with subprocess.Popen(argv, cwd=ROOT, env=environ, stdin=slave, stdout=slave, stderr=slave) as popen:
        try:
            yield Terminal(master, popen)
            assert termios.tcgetattr(slave) == before
        finally:
            popen.kill()
            os.close(slave)


def test_the_live_view_sorts_shows_a_lost_connection_and_quits(launch):
    with launch() as running, terminal(running.url) as screen:
        screen.shows("1 of 1 workers")
        screen.shows("sort (by state)")
        screen.press("s")
        screen.shows("sort (by busy)")
        running.stop()
        screen.shows("connection lost: ")
        screen.press("x\x1b[As")
        screen.shows("sort (by TTFT)")
        screen.press("q")
        assert screen.popen.wait(PATIENCE) == 0
        assert "Traceback" not in screen.text


def test_ctrl_c_ends_it_quietly(gateway):
    with terminal(gateway.url) as screen:
        screen.shows("1 of 1 workers")
        screen.popen.send_signal(signal.SIGINT)
        assert screen.popen.wait(PATIENCE) == 0
        assert "Traceback" not in screen.text
