"""Plain HTTP on the gateway's port: health, readiness, the chat page, and a text that says what this is."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from holdfast.protocol.values import is_id
from holdfast.server.gateway import static
from holdfast.server.gateway.admission import Admission, host_of

_SESSION: Final = re.compile(r"/v1/sessions/([^/]*)\Z")

_TEXT: Final = """\
Holdfast: a session server for AI runs.

Connect a WebSocket to  ws://{host}/v1/sessions/SESSION  (SESSION is a name of your choice) and send
{{"type":"hello"}} first. Subprotocols: holdfast.v1.json, holdfast.v1.msgpack.

From a terminal:        holdfast chat --url ws://{host}
In a browser:           {page}
Health and readiness:   /healthz  /readyz
"""
_ADMISSION: Final = "/v1/admission"
_NO_PAGE: Final = "no page is served here"
_METHODS: Final = ("GET", "HEAD")


def path_of(target: str) -> str:
    """The path in a request's first line, not decoded; empty where there is none."""
    try:
        return urlsplit(target).path
    except ValueError:  # `//[` and the like, which pass for addresses
        return ""


def session_of(target: str) -> str | None:
    """The session that a request names, which is not an id in every case; None for another path."""
    match = _SESSION.match(path_of(target))
    return None if match is None else unquote(match[1], errors="replace")


def asks_for_readiness(request: Request) -> bool:
    """Whether a load balancer asks if connections should be sent here."""
    return path_of(request.path) == "/readyz"


def readiness(connection: ServerConnection, *, ready: bool) -> Response:
    """What a load balancer is told."""
    if ready:
        return connection.respond(HTTPStatus.OK, "ready\n")
    return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "not ready\n")


def refusal(connection: ServerConnection, request: Request, admission: Admission) -> Response | None:
    """The response to a request that gets no other; None for all the rest."""
    if request.method not in _METHODS:
        return _wrong_method(connection)
    reason = admission.refusal(request.headers)
    return None if reason is None else connection.respond(HTTPStatus.FORBIDDEN, f"{reason}\n")


def response(
    connection: ServerConnection, request: Request, *, admission: Admission, files: static.Files, draining: bool
) -> Response | None:
    """The response to a request; None for one that may become a connection to a session."""
    session = session_of(request.path)
    if session is None and path_of(request.path) == _ADMISSION:
        return _admission(connection, request, admission)
    if session is None:
        return _page(connection, request, files)
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
    reason = admission.origin_refusal(request.headers)
    if reason is not None:
        return connection.respond(HTTPStatus.FORBIDDEN, f"{reason}\n")
    if draining:
        response = connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "This server is going down. Come back soon.\n")
        response.headers["Retry-After"] = "5"
        return response
    return None


def broken(connection: ServerConnection, first_bytes: bytes, cause: BaseException | None) -> Response:
    """The response to what the library did not take for a request: `cause` is what it says of it."""
    method = first_bytes.partition(b" ")[0].decode("ascii", "replace")
    if method.isalpha() and method.isupper() and method not in _METHODS:
        return _wrong_method(connection)
    has_body = isinstance(cause, NotImplementedError) or "body" in str(cause)
    return connection.respond(
        HTTPStatus.BAD_REQUEST,
        "A request here has no body.\n"
        if has_body
        else "This is not a request of HTTP/1.1, with lines ended by CRLF.\n",
    )


def without_body(response: Response) -> Response:
    """What HEAD gets: all that GET would have got but the body."""
    return Response(response.status_code, response.reason_phrase, response.headers)


def _wrong_method(connection: ServerConnection) -> Response:
    response = connection.respond(HTTPStatus.METHOD_NOT_ALLOWED, "Nothing here takes another method than GET.\n")
    response.headers["Allow"] = ", ".join(_METHODS)
    return response


def _asks_for_websocket(headers: Headers) -> bool:
    return any(
        protocol.strip().lower() == "websocket" for value in headers.get_all("Upgrade") for protocol in value.split(",")
    )


def _admission(connection: ServerConnection, request: Request, admission: Admission) -> Response:
    """What would be said to a connection from a page, for a page that asks on account of its own.

    Of a handshake that is refused a browser tells nobody why. And only the page knows its origin for certain: what is
    seen here of a request for a page is what a proxy has made of it.
    """
    origin = "".join(parse_qs(urlsplit(request.path).query).get("origin", []))
    if not origin:
        return connection.respond(HTTPStatus.BAD_REQUEST, "Ask with ?origin=, the origin of a page.\n")
    reason = admission.page_refusal(origin, request.headers)
    if reason is None:
        response = connection.respond(HTTPStatus.OK, "Pages of this origin may connect.\n")
    else:
        response = connection.respond(HTTPStatus.FORBIDDEN, f"{reason}\n")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _page(connection: ServerConnection, request: Request, files: static.Files) -> Response:
    path = path_of(request.path)
    match path:
        case "/healthz":
            return connection.respond(HTTPStatus.OK, "ok\n")
        case "/":
            page = files.get("/")
            if page is not None and _asks_for_html(request.headers):
                response = static.respond(connection, request, page)
            else:
                host = host_of(request.headers) or "localhost"
                text = _TEXT.format(host=host, page=f"http://{host}/" if page is not None else _NO_PAGE)
                response = connection.respond(HTTPStatus.OK, text)
            response.headers["Vary"] = "Accept"
            return response
        case _ if path in files:
            return static.respond(connection, request, files[path])
        case _:
            return connection.respond(
                HTTPStatus.NOT_FOUND, "Nothing is here. Sessions are at /v1/sessions/{session}.\n"
            )


def _asks_for_html(headers: Headers) -> bool:
    """Whether a browser asks, and not a program in a terminal, which takes anything."""
    return any("text/html" in value.lower() for value in headers.get_all("Accept"))
