"""File descriptors: each connection needs one, and so does everything else that is opened."""

from __future__ import annotations

import errno
import resource
import socket
from typing import Final

SPARE: Final = 8
"""So many must be left. It is enough for the store, and for a load balancer that asks whether more should come."""


def run_short() -> bool:
    """Whether fewer than `SPARE` more can be opened by this process, or none in the whole system."""
    try:
        with socket.socket(type=socket.SOCK_DGRAM) as probe:
            lowest_free = probe.fileno()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return True
        raise
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit != resource.RLIM_INFINITY and lowest_free > limit - SPARE
