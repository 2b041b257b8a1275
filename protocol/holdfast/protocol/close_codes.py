"""WebSocket close codes: their meaning, and whether a client comes back."""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """The codes that Holdfast itself sends."""

    NORMAL = 1000
    GOING_AWAY = 1001
    TOO_BIG = 1009
    DRAINING = 4001
    TOKEN_EXPIRED = 4002
    TOO_SLOW = 4003
    HEARTBEAT_MISSED = 4004
    STORE_UNAVAILABLE = 4005
    RATE_LIMITED = 4006
    HELLO_LATE = 4007
    TOKEN_REJECTED = 4500
    NOT_HELLO = 4501
    PROTOCOL_VIOLATIONS = 4503
    FORBIDDEN = 4504
    CLOSED_BY_OPERATOR = 4505


_RECONNECT = frozenset({1001, 1005, 1006, 1011, 1012, 1013})


def may_reconnect(code: int) -> bool:
    """Whether a client whose connection closed with `code` tries again (with backoff).

    The range tells: 4000-4499 come back, 4500-4999 do not. Of the standard codes only those of a network or a
    server in trouble come back; every other code is final.
    """
    return 4000 <= code <= 4499 or code in _RECONNECT
