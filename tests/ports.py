"""Ports for processes that find each other."""

import os
import socket
from contextlib import suppress
from itertools import count

# Below the ports that Linux, macOS and Windows give to connections.
_PORTS = range(10_000, 30_000)

_asked = count()


def find_port() -> int:
    """Find a port that no connection on this machine is given by chance; each call begins its search elsewhere.

    The port is taken seconds after it was found. A search for any free port, like Lightning's own, finds one that the
    kernel may have given to somebody else by then.
    """
    start = os.getpid() * 7 + next(_asked)
    for number in range(start, start + len(_PORTS)):
        port = _PORTS[number % len(_PORTS)]
        with socket.socket() as tried, suppress(OSError):
            tried.bind(("", port))
            return port
    raise OSError(f"no free port among {_PORTS}")
