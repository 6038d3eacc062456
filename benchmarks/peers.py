"""The gateways that are compared: how each is installed, configured as its authors advise, and started.

Each lives in an environment of its own under ``.peers/``. One process serves the traffic of each; logs of
single requests are switched off where the gateway allows it, except for Tidegate, which runs with
authentication, metrics and its access log on.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from load import Target
from measure import family, now, survivors

PEERS = Path(__file__).resolve().parent / ".peers"
CLIENT_KEY = "tg-bench-key"
START_SECONDS, STOP_SECONDS = 90.0, 8.0


class PeerUnavailable(Exception):
    """A peer isn't installed or didn't start; the text says why."""


@dataclass(frozen=True)
class Setting:
    """What a peer is started for."""

    port: int
    spare_port: int
    upstream_port: int
    folder: Path

    @property
    def upstream(self) -> str:
        """The mock's base URL, without /v1."""
        return f"http://127.0.0.1:{self.upstream_port}"

    def write(self, name: str, text: str) -> str:
        """Write a configuration file and give its path."""
        path = self.folder / name
        path.write_text(text)
        return str(path)


@dataclass(frozen=True)
class Launch:
    """How a peer is started and spoken to."""

    argv: list[str]
    headers: dict[str, str] = field(default_factory=lambda: {"authorization": f"Bearer {CLIENT_KEY}"})
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """One gateway.

    ``requirement`` is what pip installs and ``npm`` the package.json that npm does; neither, where it comes
    otherwise.
    """

    name: str
    title: str
    binary: Path
    version: Callable[[Path], str]
    launch: Callable[[Setting, Path], Launch]
    requirement: str = ""
    npm: dict[str, object] | None = None

    @property
    def installable(self) -> bool:
        """Whether it comes from a registry."""
        return bool(self.requirement or self.npm)

    def installed(self) -> bool:
        """Whether the peer can be started."""
        return self.binary.exists()

    def install(self) -> None:
        """Install the peer into its own folder; raises PeerUnavailable."""
        if self.installed() or not self.installable:
            return
        folder = PEERS / self.name.removesuffix("-openai")
        folder.mkdir(parents=True, exist_ok=True)
        if self.npm:
            commands = [
                ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), self.requirement]
            ]
        else:
            commands = [
                [sys.executable, "-m", "venv", str(folder)],
                [str(folder / "bin/pip"), "install", "--quiet", "--only-binary", ":all:", self.requirement],
            ]
        for command in commands:
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            except OSError as error:
                raise PeerUnavailable(f"{command[0]}: {error.strerror}") from error
            if done.returncode:
                lines = [line for line in done.stderr.splitlines() if "ERR" in line] or ["install failed"]
                raise PeerUnavailable(lines[0][:160])

    def describe(self) -> str:
        """The version that is installed; raises PeerUnavailable."""
        if not self.installed():
            remedy = "run with --install" if self.installable else "install it with the system's packages"
            raise PeerUnavailable(f"not installed ({remedy})")
        return self.version(self.binary)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Running:
    """A started peer, whose processes are weighed and ended together; raises PeerUnavailable."""

    def __init__(self, peer: Peer, setting: Setting) -> None:
        self.peer = peer
        self._launch = peer.launch(setting, peer.binary)
        self._port = setting.port
        self._errors = setting.folder / "stderr.log"
        # A bare environment: peers get no proxies, no keys and no home of the caller's.
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(setting.folder),
            "LANG": "C.UTF-8",
            **self._launch.environment,
        }
        try:
            with self._errors.open("wb") as errors:
                self._process = subprocess.Popen(
                    self._launch.argv,
                    cwd=setting.folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,
                )
        except OSError as error:
            raise PeerUnavailable(f"{self._launch.argv[0]}: {error.strerror}") from error

    @property
    def pid(self) -> int:
        """The process that was started; it leads a session of its own."""
        return self._process.pid

    @property
    def target(self) -> Target:
        """Where its clients send chat completions."""
        return Target(f"http://127.0.0.1:{self._port}/v1/chat/completions", self._launch.headers)

    def wait_ready(self) -> None:
        """Wait until a chat completion succeeds; raises PeerUnavailable."""
        deadline = now() + START_SECONDS
        reason = "no answer"
        while now() < deadline:
            with suppress(subprocess.TimeoutExpired):
                code = self._process.wait(timeout=0.2)
                raise PeerUnavailable(f"ended with {code} at start: {self._last_words()}")
            reason = self._try_once()
            if not reason:
                return
        raise PeerUnavailable(f"not ready after {START_SECONDS:.0f} s: {reason}; {self._last_words()}")

    def stop(self) -> None:
        """End every process, gently first."""
        before = family(self.pid)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=STOP_SECONDS)
        for pid in survivors(before):  # workers in sessions of their own may outlive their parent
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def _try_once(self) -> str:
        _, _, body = self.target.request(stream=False).partition(b"\r\n\r\n")
        headers = {"content-type": "application/json", **self.target.headers}
        request = urllib.request.Request(self.target.url, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                response.read()
        except urllib.error.HTTPError as error:
            return f"{error.code} {error.read()[:200].decode(errors='replace')}"
        except OSError as error:
            return str(error)
        return ""

    def _last_words(self) -> str:
        lines = self._errors.read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "nothing on stderr"


def _pip_version(package: str) -> Callable[[Path], str]:
    def version(binary: Path) -> str:
        program = f"import importlib.metadata as m; print(m.version({package!r}))"
        return _output([str(binary.parent / "python"), "-c", program])

    return version


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip()


def _nginx(setting: Setting, binary: Path) -> Launch:
    # The limit of what any proxy can do here: it forwards, without keys, limits, retries or counting.
    configuration = f"""
daemon off;
worker_processes 1;
pid {setting.folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 100000000;
    client_body_temp_path {setting.folder}/body;
    proxy_temp_path {setting.folder}/proxy;
    fastcgi_temp_path {setting.folder}/fastcgi;
    uwsgi_temp_path {setting.folder}/uwsgi;
    scgi_temp_path {setting.folder}/scgi;
    upstream mock {{
        server 127.0.0.1:{setting.upstream_port};
        keepalive 1024;
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{setting.port};
        location / {{
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""
    return Launch([str(binary), "-c", setting.write("nginx.conf", configuration), "-p", str(setting.folder)])


def _smg(setting: Setting, binary: Path) -> Launch:
    return Launch(
        [
            *[str(binary), "launch", "--host", "127.0.0.1", "--port", str(setting.port)],
            *["--worker-urls", setting.upstream, "--log-level", "warn"],
            *["--prometheus-host", "127.0.0.1", "--prometheus-port", str(setting.spare_port)],
        ],
    )


def _smg_openai(setting: Setting, binary: Path) -> Launch:
    # The default is to balance over inference servers; this forwards to providers, with the client's key.
    return Launch([*_smg(setting, binary).argv, "--backend", "openai"])


def _vllm_router(setting: Setting, binary: Path) -> Launch:
    return Launch(
        [
            *[str(binary), "--host", "127.0.0.1", "--port", str(setting.port)],
            *["--worker-urls", setting.upstream, "--log-level", "warning"],
            *["--prometheus-host", "127.0.0.1", "--prometheus-port", str(setting.spare_port)],
        ],
    )


def _portkey(setting: Setting, binary: Path) -> Launch:
    return Launch(
        ["node", str(binary), f"--port={setting.port}", "--headless"],
        headers={
            "authorization": f"Bearer {CLIENT_KEY}",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"{setting.upstream}/v1",
        },
        environment={"NODE_ENV": "production"},
    )


def _litellm(setting: Setting, binary: Path) -> Launch:
    # Its production guide: one worker a core, LITELLM_MODE and logging at ERROR; no database here.
    parameters = {"model": "openai/mock-model", "api_base": f"{setting.upstream}/v1", "api_key": "sk-mock"}
    configuration = {
        "model_list": [{"model_name": "mock-model", "litellm_params": parameters}],
        "general_settings": {"master_key": "sk-bench-key"},
        "litellm_settings": {"set_verbose": False, "json_logs": True, "request_timeout": 600},
    }
    path = setting.write("litellm.yaml", yaml.safe_dump(configuration))
    return Launch(
        [
            *[str(binary), "--config", path, "--host", "127.0.0.1", "--port", str(setting.port)],
            *["--num_workers", "1", "--telemetry", "False"],
        ],
        headers={"authorization": "Bearer sk-bench-key"},
        environment={
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "ERROR",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        },
    )


def tidegate_configuration(setting: Setting) -> str:
    """Tidegate's configuration: one upstream, one key, everything that watches a request switched on."""
    configuration = {
        "server": {"host": "127.0.0.1", "port": setting.port},
        "database": f"sqlite:///{setting.folder / 'bench.db'}",
        "providers": {
            "mock": {"preset": "openai", "base_url": f"{setting.upstream}/v1", "api_key": "sk-mock"},
        },
        "models": {"mock-model": {"route": ["mock/mock-model"]}},
        "keys": [{"name": "bench", "key": CLIENT_KEY, "tenant": "bench"}],
        "observability": {"metrics": True, "access_log": "json"},
    }
    return setting.write("tidegate.yaml", yaml.safe_dump(configuration, sort_keys=False))


def _tidegate(setting: Setting, binary: Path) -> Launch:
    return Launch(
        [str(binary), "serve", "--config", tidegate_configuration(setting), "--port", str(setting.port)]
    )


_SCRIPTS = Path(sys.executable).parent

TIDEGATE = Peer("tidegate", "Tidegate", _SCRIPTS / "tidegate", _pip_version("tidegate"), _tidegate)

ALL = [
    Peer(
        "nginx",
        "nginx proxy_pass",
        Path(shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "/usr/sbin/nginx"),
        lambda binary: _output([str(binary), "-v"]).rpartition("/")[2],
        _nginx,
    ),
    Peer(
        "vllm-router",
        "vllm-router (Rust)",
        PEERS / "vllm-router/bin/vllm-router",
        _pip_version("vllm-router"),
        _vllm_router,
        requirement="vllm-router==0.1.17",
    ),
    Peer("smg", "smg (Rust)", PEERS / "smg/bin/smg", _pip_version("smg"), _smg, requirement="smg==1.13.0"),
    Peer(
        "smg-openai",
        "smg, openai backend",
        PEERS / "smg/bin/smg",
        _pip_version("smg"),
        _smg_openai,
        requirement="smg==1.13.0",
    ),
    TIDEGATE,
    Peer(
        "portkey",
        "Portkey (Node)",
        PEERS / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js",
        lambda binary: _output(["node", "-p", f"require('{binary.parents[1] / 'package.json'}').version"]),
        _portkey,
        # Newer versions of the server library than its authors build with answer every stream with a 500.
        npm={
            "private": True,
            "dependencies": {"@portkey-ai/gateway": "1.15.2"},
            "overrides": {"@hono/node-server": "1.13.5"},
        },
    ),
    Peer(
        "litellm",
        "LiteLLM (Python)",
        PEERS / "litellm/bin/litellm",
        _pip_version("litellm"),
        _litellm,
        # Pinned by hand: releases of this package have been tampered with on the registry more than once.
        requirement="litellm[proxy]==1.106.0",
    ),
]
