"""Ports for servers that must be told theirs before they start, or that come back on the one they had."""

import socket
from pathlib import Path
from random import SystemRandom

_LEAST = 10_000
_GIVEN_AWAY = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port of loopback that nobody has.

    It is below those that the kernel gives away by itself: one of these may be another connection's before
    the server has it, or while the server is down.
    """
    below = int(_GIVEN_AWAY.read_text(encoding="ascii").split()[0])
    for port in SystemRandom().sample(range(_LEAST, below), below - _LEAST):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no port is free")
