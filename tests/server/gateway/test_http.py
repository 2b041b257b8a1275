"""Requests that are none: each gets a response that says so."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.served import PATIENCE_SECONDS, Served, served, until


async def _response(server: Served, request: bytes, *, end: bool = False) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.gateway.port)
    try:
        writer.write(request.replace(b"HOST", server.address.encode()))
        if end:
            writer.write_eof()
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("request_", "status", "says"),
    [
        (b"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\n\r\nhello", 405, b"GET"),
        (b"DELETE /v1/sessions/s HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\n\r\nhello", 405, b"GET"),
        (b"POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 405, b"GET"),
        (b"GET / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\n\r\nhello", 400, b"no body"),
        (b"GET / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, b"no body"),
        (b"GET / HTTP/1.1\nHost: HOST\n\n", 400, b"CRLF"),
        (b"GET / HTTP/1.1\r\nHost : HOST\r\n\r\n", 400, b"HTTP/1.1"),
        (b"GET / HTTP/2.0\r\nHost: HOST\r\n\r\n", 400, b"HTTP/1.1"),
        (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: HOST\r\n\r\n", 400, b"HTTP/1.1"),
        (b"hello\r\n", 400, b"HTTP/1.1"),
        (b"\x16\x03\x01\x02\x00\x01\n", 400, b"HTTP/1.1"),
    ],
)
async def test_what_is_no_request_is_told_so(request_: bytes, status: int, says: bytes) -> None:
    """It gets a status and a sentence, once, and the connection is closed; others are served as before."""
    async with served() as server:
        response = await _response(server, request_)
        head, _, body = response.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"Connection: close" in head
        assert (b"Allow: GET, HEAD" in head) == (status == 405)
        assert says in body
        assert response.count(b"HTTP/1.1 ") == 1
        assert (await server.get("/healthz"))[0] == 200


@pytest.mark.parametrize("request_", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: HOST\r\n"])
async def test_one_that_leaves_before_it_asked_is_told_nothing(request_: bytes) -> None:
    """A connection that ends in the middle of its request just ends."""
    async with served() as server:
        assert await _response(server, request_, end=True) == b""
        await until(lambda: not server.gateway._sockets)  # pyright: ignore[reportPrivateUsage]


async def test_a_refused_request_is_logged_without_its_query(capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody may have put a token there."""
    async with served() as server:
        response = await server.request("/v1/sessions/s?token=secret", "Origin: https://evil.example", host="x.example")
        assert response.status == 403
    logged = capsys.readouterr().out
    assert "/v1/sessions/s" in logged
    assert "secret" not in logged
