"""Plain HTTP on the gateway's port: health, readiness, and a page that says what this is."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote, urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from holdfast.protocol.values import is_id

_SESSION: Final = re.compile(r"/v1/sessions/([^/]*)\Z")

_PAGE: Final = """\
Holdfast: a session server for AI runs.

Connect a WebSocket to  ws://{host}/v1/sessions/SESSION  (SESSION is a name of your choice) and send
{{"type":"hello"}} first. Subprotocols: holdfast.v1.json, holdfast.v1.msgpack.

From a terminal:        holdfast chat --url ws://{host}
Health and readiness:   /healthz  /readyz
"""


def session_of(path: str) -> str | None:
    """The session named by a request's path, which is not an id in every case; None for another path."""
    match = _SESSION.match(urlsplit(path).path)
    return None if match is None else unquote(match[1], errors="replace")


def asks_for_readiness(request: Request) -> bool:
    """Whether a load balancer asks if connections should be sent here."""
    return urlsplit(request.path).path == "/readyz"


def readiness(connection: ServerConnection, *, ready: bool) -> Response:
    """What a load balancer is told."""
    if ready:
        return connection.respond(HTTPStatus.OK, "ready\n")
    return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "not ready\n")


def answer(connection: ServerConnection, request: Request, *, draining: bool) -> Response | None:
    """The answer to a request; None for one that may become a connection to a session."""
    session = session_of(request.path)
    if session is None:
        return _page(connection, request)
    if not is_id(session):
        return connection.respond(
            HTTPStatus.BAD_REQUEST,
            "A session's name has 1-128 characters, letters, digits and . _ : ~ -, "
            "and begins with a letter or a digit.\n",
        )
    if not _asks_for_websocket(request.headers):
        response = connection.respond(
            HTTPStatus.UPGRADE_REQUIRED, "This is a WebSocket endpoint: connect with a WebSocket client.\n"
        )
        response.headers["Upgrade"] = "websocket"
        return response
    if draining:
        response = connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "This server is going down. Come back soon.\n")
        response.headers["Retry-After"] = "5"
        return response
    return None


def _asks_for_websocket(headers: Headers) -> bool:
    return any(
        protocol.strip().lower() == "websocket" for value in headers.get_all("Upgrade") for protocol in value.split(",")
    )


def _page(connection: ServerConnection, request: Request) -> Response:
    match urlsplit(request.path).path:
        case "/healthz":
            return connection.respond(HTTPStatus.OK, "ok\n")
        case "/":
            host = request.headers.get_all("Host")[:1] or ["localhost"]
            return connection.respond(HTTPStatus.OK, _PAGE.format(host=host[0]))
        case _:
            return connection.respond(
                HTTPStatus.NOT_FOUND, "Nothing is here. Sessions are at /v1/sessions/{session}.\n"
            )
