"""The chat page and the browser client's modules, as they are served.

All files are read once, before anything is served, and a request is looked up among them by its whole path: no
request touches the disk, and none reaches a file that is not in the list.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from holdfast.server.gateway.admission import host_of

_CONTENT_TYPES: Final = {
    "": "text/plain; charset=utf-8",  # a LICENSE
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
"""A file of another kind is not served."""
_ROOTS: Final = ("holdfast", "page")
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "manifest-src 'self'; connect-src {connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


@dataclass(frozen=True, slots=True)
class File:
    """What a path gives."""

    body: bytes
    content_type: str
    etag: str


Files = Mapping[str, File]
"""By path, `/` among them where there is a page."""


def files_in(directory: Path) -> Files:
    """The files of the library and the page, which lie in `directory` as `holdfast` and `page`; none where it is not.

    Raises OSError for a file that cannot be read.
    """
    files = {"/" + path.relative_to(directory).as_posix(): _file(path) for path in _paths(directory)}
    if "/page/index.html" in files:
        files["/"] = files["/page/index.html"]
    return files


@functools.cache
def shipped() -> Files:
    """The files that came with this package, or that lie in the working copy it is run from. Read at the first call."""
    here = Path(__file__).resolve()
    installed, working_copy = here.parents[2] / "browser", here.parents[4] / "client" / "browser"
    return files_in(installed if installed.is_dir() else working_copy)


def without_page(files: Files) -> Files:
    """The library's files alone."""
    return {path: file for path, file in files.items() if path.startswith("/holdfast/")}


def respond(connection: ServerConnection, request: Request, file: File) -> Response:
    """The response that carries a file, or says that the one the client has is still right."""
    response = connection.respond(HTTPStatus.OK, "")
    headers = response.headers
    headers["ETag"] = file.etag
    headers["Cache-Control"] = "no-cache"
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers["Content-Security-Policy"] = _policy(request.headers)
    del headers["Content-Type"], headers["Content-Length"]
    if _has(request.headers, file.etag):
        status = HTTPStatus.NOT_MODIFIED
        return Response(status.value, status.phrase, headers)
    headers["Content-Type"] = file.content_type
    headers["Content-Length"] = str(len(file.body))
    return Response(response.status_code, response.reason_phrase, headers, file.body)


def _paths(directory: Path) -> Iterator[Path]:
    for root in _ROOTS:
        for path in sorted((directory / root).rglob("*")):
            if path.is_file() and path.suffix in _CONTENT_TYPES:
                yield path


def _file(path: Path) -> File:
    body = path.read_bytes()
    return File(body, _CONTENT_TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def _has(headers: Headers, etag: str) -> bool:
    known = [item.strip().removeprefix("W/") for value in headers.get_all("If-None-Match") for item in value.split(",")]
    return etag in known or "*" in known


def _policy(headers: Headers) -> str:
    """What the page may do: run its own modules and talk to this server. No string becomes markup or code in it.

    Not every current browser counts a WebSocket to the same host as 'self', so the host is named. A literal IPv6
    address cannot be named in a policy.
    """
    host = host_of(headers)
    named = "" if host is None or host.startswith("[") else f" ws://{host} wss://{host}"
    return _POLICY.format(connect=f"'self'{named}")
