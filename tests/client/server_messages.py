"""What a server says, and a client without I/O to say it to."""

from __future__ import annotations

from typing import Any

from holdfast.client.connection import Connection
from holdfast.protocol import JSON_CODEC

LIMITS = {"frameBytes": 4096, "eventBytes": 4096, "messageBytes": 65536, "commandItems": 64, "commandValues": 256}


def make(*, jitter: float = 0.0, **options: Any) -> Connection:
    """A client whose random numbers are all `jitter`."""
    return Connection(JSON_CODEC, lambda: jitter, device="d", client="test", **options)


def tell(connection: Connection, *messages: Any, now: float = 0.0) -> None:
    """The server says something, all in one frame."""
    connection.received(list(messages), now)


def welcome(resume: str = "snapshot", epoch: str = "E", **fields: Any) -> dict[str, Any]:
    """A welcome message."""
    return {
        "type": "welcome",
        "session": "s",
        "connection": "c",
        "principal": "p",
        "device": "d",
        "at": 1,
        "epoch": epoch,
        "head": 0,
        "resume": resume,
        "heartbeatMs": 1000,
        "features": [],
        "limits": LIMITS,
        **fields,
    }


def snapshot(seq: int = 0, epoch: str = "E", **fields: Any) -> dict[str, Any]:
    """An empty snapshot."""
    return {
        "type": "snapshot",
        "epoch": epoch,
        "seq": seq,
        "at": seq,
        "reset": False,
        "messages": [],
        "runs": [],
        "more": False,
        "last": True,
        **fields,
    }


def live(**options: Any) -> Connection:
    """A client that has caught up with an empty log at time 0."""
    connection = make(**options)
    connection.opening()
    connection.opened(0.0, None)
    tell(connection, welcome(), snapshot(), {"type": "caughtUp", "seq": 0, "at": 0})
    connection.frames()
    connection.news()
    assert connection.status == "live"
    return connection


def lost(connection: Connection) -> str | None:
    """Why the client wants to drop the line."""
    return connection.lost


def sent(connection: Connection) -> list[Any]:
    """What the client wrote, decoded."""
    return [JSON_CODEC.decode(frame.decode()) for frame in connection.frames()]
