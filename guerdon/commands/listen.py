"""The address that a server of ours listens on."""

from __future__ import annotations

import errno
import socket

from guerdon.types import ConfigError


def bound(host: str, port: int) -> socket.socket:
    """A socket at that address, which does not listen yet: a port that is taken is found before anything is loaded or printed.

    Raises ConfigError.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port is {port}; write 1 to 65535, or 0 for a free one")
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"--port {port}: is taken on {host}; choose another, or 0 for a free one") from None
        raise ConfigError(f"--host {host} --port {port}: cannot be listened on ({error.strerror or error})") from None
    return found
