"""Who connects: a token in, a principal out."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from holdfast.protocol.values import is_id
from holdfast.server.errors import AuthError


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a token speaks for, and until when (ms since the epoch; None: as long as the connection lasts)."""

    name: str
    expires_at: int | None = None


class Authenticator(Protocol):
    """Decides on tokens. One instance serves all connections at once."""

    async def authenticate(self, token: str | None) -> Principal:
        """The principal of `token`; None where the client sent none. Raises AuthError."""
        ...


class AnonymousAuthenticator:
    """Lets everybody in as one principal. Fit for a loopback address, where only this machine's people come by."""

    principal = "local"

    async def authenticate(self, token: str | None) -> Principal:
        """The one principal there is, whatever the token."""
        return Principal(self.principal)


class TokenAuthenticator:
    """Knows a fixed set of tokens, each by its principal. Raises ValueError for none, or for names that are no ids."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        if not tokens:
            raise ValueError("give at least one token")
        if not all(token for token in tokens) or not all(is_id(name) for name in tokens.values()):
            raise ValueError("tokens are not empty, and principals are ids: letters, digits and . _ : ~ -")
        self._tokens = [(token.encode(), Principal(name)) for token, name in tokens.items()]

    async def authenticate(self, token: str | None) -> Principal:
        """The principal of a known token. Takes the same time for every token of a length."""
        if token is None:
            raise AuthError("a token is needed: send it in hello, or as Authorization: Bearer")
        given = token.encode("utf-8", "surrogatepass")
        found: Principal | None = None
        for known, principal in self._tokens:
            if hmac.compare_digest(known, given):
                found = principal
        if found is None:
            raise AuthError("this token is not known")
        return found


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
