"""What a browser may be made to ask for by a page from elsewhere: decided before anybody is asked who they are.

Every page may try to open a WebSocket to every server, to one on the reader's own machine too, and the browser sends
along where the page came from (`Origin`) and whom it believes to talk to (`Host`). Programs send no origin.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from websockets.datastructures import Headers

from holdfast.server.auth import is_loopback

_HOST: Final = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[0-9a-z._~%-]+)(?P<port>:[0-9]*)?\Z")
_DEFAULT_PORTS: Final = {"http://": ":80", "https://": ":443"}


class Admission:
    """Admits pages from the server's own origin, and from those listed exactly.

    Where `loopback_only`, the server asks nobody who they are because only this machine can reach it. A foreign page
    can still pass for the server's own, if its name is made to resolve to 127.0.0.1 after it was loaded (DNS
    rebinding); so the server must then be called by a loopback name.
    """

    def __init__(self, origins: Sequence[str] = (), *, loopback_only: bool) -> None:
        self._origins = frozenset(origin.lower() for origin in origins)
        self._loopback_only = loopback_only

    def refusal(self, headers: Headers) -> str | None:
        """Why nothing is answered to this request; None where something is.

        A request without a Host is no browser's.
        """
        named = headers.get_all("Host")
        if not self._loopback_only or not named:
            return None
        found = _HOST.match(named[0].lower())
        if len(named) == 1 and found is not None and is_loopback(found["name"]):
            return None
        return (
            "This server asks nobody who they are, so it answers only when it is called localhost, 127.0.0.1 or [::1]. "
            "To serve it under another name, give it tokens (HOLDFAST_TOKENS)."
        )

    def origin_refusal(self, headers: Headers) -> str | None:
        """Why this request may not become a connection; None where it may."""
        origins = [origin.lower() for origin in headers.get_all("Origin")]
        if not origins:
            return None
        if len(origins) == 1 and (origins[0] in self._origins or _is_own(origins[0], headers)):
            return None
        return (
            f"Pages of {origins[0]:.200} may not connect to this server. "
            "The setting `origins` (HOLDFAST_ORIGINS) lists those that may, besides its own."
        )


def host_of(headers: Headers) -> str | None:
    """The host, with its port where one is named, that a request believes to talk to; None where it is none."""
    named = headers.get_all("Host")
    host = named[0].lower() if len(named) == 1 else ""
    return host if _HOST.match(host) else None


def _is_own(origin: str, headers: Headers) -> bool:
    """Whether a page came from this server, or from the proxy before it, which is known by the same host."""
    host = host_of(headers)
    return host is not None and any(
        # A browser leaves a scheme's own port out of both; a proxy may write it.
        origin == scheme + host.removesuffix(port)
        for scheme, port in _DEFAULT_PORTS.items()
    )
