"""Which requests a page from elsewhere can make a browser send, and what they get."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from websockets.asyncio.client import connect
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from holdfast.server.gateway.admission import Admission
from holdfast.server.gateway.auth import TokenAuthenticator
from holdfast.server.settings import GatewaySettings
from tests.support.served import served

UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)


@pytest.mark.parametrize(
    ("host", "origin", "admitted"),
    [
        ("app.example", "https://app.example", True),
        ("app.example", "http://app.example", True),
        ("app.example", "HTTPS://App.Example", True),
        ("App.Example", "https://app.example", True),
        ("app.example:443", "https://app.example", True),
        ("app.example:80", "http://app.example", True),
        ("app.example:80", "https://app.example", False),
        ("app.example:8787", "http://app.example:8787", True),
        ("app.example:8787", "http://app.example", False),
        ("app.example", "http://app.example:8787", False),
        ("[::1]:8787", "http://[::1]:8787", True),
        ("app.example", "https://app.example.evil", False),
        ("app.example", "https://evil.app.example", False),
        ("app.example", "https://app.example/", False),
        ("app.example", "ftp://app.example", False),
        ("app.example", "null", False),
        ("app.example", "", False),
        ("app.example evil.example", "https://app.example evil.example", False),
        ("", "https://", False),
    ],
)
def test_a_page_of_the_server_itself_is_admitted(host: str, origin: str, admitted: bool) -> None:
    """Its origin is http or https and the host it calls, whose own port may be left out; nothing less is its own."""
    headers = Headers([("Host", host), ("Origin", origin)])
    assert (Admission(loopback_only=False).origin_refusal(headers) is None) == admitted


def test_two_hosts_or_origins_are_nobodys() -> None:
    """What a request says twice it does not say."""
    admission = Admission(["https://a.example"], loopback_only=True)
    twice = Headers([("Host", "localhost"), ("Host", "localhost"), ("Origin", "http://localhost")])
    assert admission.refusal(twice) is not None
    assert admission.origin_refusal(twice) is not None
    two = Headers([("Host", "localhost"), ("Origin", "https://a.example"), ("Origin", "https://a.example")])
    assert admission.origin_refusal(two) is not None


@pytest.mark.parametrize(
    ("origin", "admitted"),
    [
        ("https://app.example", True),
        ("https://App.example", True),
        ("https://app.example.evil", False),
        ("http://app.example", False),
        ("http://localhost:5173", False),
    ],
)
async def test_listed_origins_may_connect_too(origin: str, admitted: bool) -> None:
    """Configured origins are exact; any other page is refused with 403 and told the setting."""
    async with served(settings=GatewaySettings(origins=("https://App.example",))) as server:
        if admitted:
            async with server.client(origin=origin, hello={}) as client:
                assert client.received[0]["type"] == "welcome"
        else:
            with pytest.raises(InvalidStatus) as refused:
                async with server.client(origin=origin):
                    """Not reached."""
            assert refused.value.response.status_code == 403
            assert f"{origin} may not connect".encode() in (refused.value.response.body or b"")
            assert b"HOLDFAST_ORIGINS" in (refused.value.response.body or b"")


async def test_a_list_does_not_shut_out_the_server_itself() -> None:
    """The chat page works whatever else is configured."""
    async with (
        served(settings=GatewaySettings(origins=("https://app.example",))) as server,
        server.client(origin=f"http://{server.address}", hello={}) as client,
    ):
        assert client.received[0]["type"] == "welcome"


async def test_another_page_on_this_machine_is_another_origin() -> None:
    """Whatever is served on another port of localhost may not drive this server, unless it is listed."""
    async with served() as server:
        with pytest.raises(InvalidStatus) as refused:
            async with server.client(origin="http://127.0.0.1:1"):
                """Not reached."""
        assert refused.value.response.status_code == 403


async def test_a_client_without_an_origin_is_no_browser() -> None:
    """Origins do not keep programs out."""
    async with (
        served(settings=GatewaySettings(origins=("https://app.example",))) as server,
        server.client(hello={}) as client,
    ):
        assert client.received[0]["type"] == "welcome"


@pytest.mark.parametrize(
    ("host", "admitted"),
    [
        ("localhost", True),
        ("LOCALHOST:8787", True),
        ("127.0.0.1", True),
        ("127.8.8.8:1", True),
        ("[::1]", True),
        ("[::1]:8787", True),
        (None, True),
        ("rebound.example", False),
        ("rebound.example:8787", False),
        ("localhost.rebound.example", False),
        ("127.0.0.1.rebound.example", False),
        ("192.168.0.1", False),
        ("[::2]", False),
        ("localhost:8787@rebound.example", False),
        ("rebound.example@localhost", False),
    ],
)
@pytest.mark.parametrize("path", ["/", "/readyz", "/page/index.html", "/v1/sessions/s"])
async def test_where_nobody_is_asked_only_loopback_names_are_answered(
    host: str | None, path: str, admitted: bool
) -> None:
    """A page whose name was made to resolve to this machine reaches nothing, though its origin fits its host."""
    async with served() as server:
        response = await server.request(path, f"Origin: http://{host}", host=host)
    assert (response.status == 403 and b"HOLDFAST_TOKENS" in response.body) != admitted


async def test_where_tokens_are_asked_for_the_name_does_not_matter() -> None:
    """Behind a proxy with tokens, the server's own page connects under the name that the proxy hands on."""
    async with served(authenticator=TokenAuthenticator({"secret": "ana"})) as server:
        response = await server.request("/v1/sessions/s", host="app.example")
        assert response.status == 426
        async with connect(
            "ws://app.example/v1/sessions/s",
            origin=Origin("https://app.example"),
            host="127.0.0.1",
            port=server.gateway.port,
            proxy=None,
        ) as page:
            await page.send('{"type":"hello","token":"secret"}')
            assert '"welcome"' in str(await page.recv())


async def test_a_refusal_is_logged_for_want_of_a_page_that_would_tell(capsys: pytest.CaptureFixture[str]) -> None:
    """A browser says nothing of a refused handshake, so the server's log names the page and the setting."""
    async with served() as server:
        await server.request("/v1/sessions/s", "Origin: https://evil.example", *UPGRADE)
    assert "https://evil.example may not connect" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("host", "origin", "admitted"),
    [
        ("lan.test:9161", "http://lan.test:9161", True),
        ("lan.test", "http://lan.test:9161", False),
        ("127.0.0.1:8787", "http://lan.test:9161", False),
        (None, "http://lan.test:9161", False),
        ("lan.test", "https://app.example", True),
    ],
)
async def test_a_page_can_ask_whether_it_could_connect(
    host: str | None, origin: str, admitted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told what its connection would be told, which is what the log says too: both names, and both cures."""
    settings = GatewaySettings(origins=("https://app.example",))
    async with served(authenticator=TokenAuthenticator({"secret": "ana"}), settings=settings) as server:
        asked = await server.request(f"/v1/admission?origin={quote(origin, safe='')}", host=host)
        logged = capsys.readouterr().out
        unknown = "Sec-WebSocket-Protocol: unknown"  # one that is admitted is refused for this then, with 400
        shaken = await server.request("/v1/sessions/s", f"Origin: {origin}", unknown, *UPGRADE, host=host)
    assert (asked.status, shaken.status) == ((200, 400) if admitted else (403, 403))
    if not admitted:
        assert asked.body == shaken.body
        for said in (origin, host or "names no host", "proxy_set_header Host $http_host", "HOLDFAST_ORIGINS"):
            assert said.encode() in asked.body
            assert said in logged
    assert asked.headers["content-type"].startswith("text/plain")
    assert (asked.headers["cache-control"], asked.headers["x-content-type-options"]) == ("no-store", "nosniff")


@pytest.mark.parametrize("query", ["", "?origin=", "?other=http://a.example"])
async def test_a_question_about_no_page_is_told_how_to_ask(query: str) -> None:
    """There is no response for nobody."""
    async with served() as server:
        response = await server.request(f"/v1/admission{query}")
    assert (response.status, b"?origin=" in response.body) == (400, True)


async def test_the_question_is_not_answered_under_a_foreign_name() -> None:
    """Where nobody is asked who they are, a page under another name learns nothing here either."""
    async with served() as server:
        response = await server.request("/v1/admission?origin=http://rebound.example", host="rebound.example")
    assert (response.status, b"HOLDFAST_TOKENS" in response.body) == (403, True)
