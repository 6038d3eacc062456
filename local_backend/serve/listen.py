"""Takes the server's port."""

import socket

from local_backend.errors import BackendError, ConfigError

_MAX_PORT = 65535


def bind(host: str, port: int) -> socket.socket:
    """Take the port before the slow loading begins; nothing is accepted on it until the server runs.

    Raises ConfigError for an impossible port or host and BackendError when the port is taken.
    """
    if not 1 <= port <= _MAX_PORT:
        raise ConfigError(
            f"port {port} is not between 1 and {_MAX_PORT}; the gateway must know where to find this server"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except socket.gaierror as error:
        sock.close()
        raise ConfigError(f"cannot resolve the host {host!r}: {error.strerror}") from error
    except OSError as error:
        sock.close()
        raise BackendError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another --port"
        ) from error
    return sock
