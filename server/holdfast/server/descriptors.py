"""File descriptors: each connection needs one, and so does everything else that is opened."""

from __future__ import annotations

import errno
import socket
from typing import Final

SPARE: Final = 8
"""So many must be left. It is enough for the store, and for a load balancer that asks whether more should come."""


def run_short() -> bool:
    """Whether fewer than `SPARE` more can be opened, by this process or in the whole system. It tries: 20 µs."""
    probes: list[socket.socket] = []
    try:
        for _ in range(SPARE):
            probes.append(socket.socket(type=socket.SOCK_DGRAM))
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return True
        raise
    finally:
        for probe in probes:
            probe.close()
    return False
