"""What a browser may be made to ask for by a page from elsewhere: decided before anybody is asked who they are.

Every page may try to open a WebSocket to every server, to one on the reader's own machine too, and the browser sends
along where the page came from (`Origin`) and whom it believes to talk to (`Host`). Programs send no origin.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from websockets.datastructures import Headers

from holdfast.server.gateway.auth import is_loopback

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
        origins = headers.get_all("Origin")
        if not origins:
            return None
        return self.page_refusal(origins[0] if len(origins) == 1 else ", ".join(origins), headers)

    def page_refusal(self, origin: str, headers: Headers) -> str | None:
        """Why a page of this origin could not connect, if its connection came as this request did; None if it could.

        The reason names what was compared, and both ways to mend it: whoever reads it knows which of them is meant.
        """
        origin = origin.lower()
        if origin in self._origins or _is_own(origin, headers):
            return None
        host = host_of(headers)
        called = "names no host" if host is None else f"calls it {host:.200} (Host)"
        return (
            f"Pages of {origin:.200} may not connect to this server: the request {called}, which is another origin. "
            "If the page is the server's own, the proxy before it must hand on Host as it came, with its port "
            "(nginx: proxy_set_header Host $http_host). If it is not, the setting `origins` (HOLDFAST_ORIGINS) lists "
            "the pages that may connect besides the server's own."
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
