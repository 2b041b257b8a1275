"""What stands before the WebSocket: paths, subprotocols, health."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from holdfast.server.errors import ConfigError, StoreUnavailableError
from holdfast.server.gateway.auth import AnonymousAuthenticator
from holdfast.server.gateway.endpoint import Gateway
from holdfast.server.store import MemoryStore
from tests.support.served import CODECS, served


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.subprotocol)
async def test_the_subprotocol_chooses_the_encoding(codec: Any) -> None:
    """A client that offers an encoding gets it."""
    async with served() as server, server.client(codec=codec, hello={}) as client:
        assert client.connection.subprotocol == codec.subprotocol
        assert (await client.ask("ping", id="p"))["outcome"] == "pong"


async def test_no_subprotocol_means_json() -> None:
    """A client that offers none speaks JSON, and the response names no subprotocol."""
    async with served() as server, connect(f"ws://{server.address}/v1/sessions/s", proxy=None) as plain:
        await plain.send('{"type":"hello"}')
        assert '"welcome"' in str(await plain.recv())
        assert plain.subprotocol is None


@pytest.mark.parametrize(
    ("path", "subprotocol", "status"),
    [
        ("/v1/sessions/s", "chat", 400),
        ("/v1/sessions/.hidden", None, 400),
        ("/v1/sessions/", None, 400),
        ("/v1/sessions/a%20b", None, 400),
        ("/v1/sessions/" + "x" * 129, None, 400),
        ("/v2/sessions/s", None, 404),
        ("/v1/sessions/s/more", None, 404),
    ],
)
async def test_refused_before_the_upgrade(path: str, subprotocol: str | None, status: int) -> None:
    """Unknown subprotocols, names that are no ids and other paths are refused as HTTP, with a reason."""
    offered = None if subprotocol is None else [Subprotocol(subprotocol)]
    async with served() as server:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://{server.address}{path}", subprotocols=offered, proxy=None)
        assert refused.value.response.status_code == status
        assert refused.value.response.body


async def test_an_encoded_name_is_the_name() -> None:
    """A colon that a client's library wrote as %3A is a colon, and a query is no part of the name."""
    async with served() as server, server.client("a%3Ab?x=1", hello={}) as client:
        assert client.received[0]["session"] == "a:b"


@pytest.mark.parametrize(
    ("path", "status", "part"),
    [
        ("/", 200, "holdfast chat"),
        ("/healthz", 200, "ok"),
        ("/readyz", 200, "ready"),
        ("/favicon.ico", 404, "/v1/sessions/"),
        ("/v1/sessions/s", 426, "WebSocket"),
    ],
)
async def test_plain_requests(path: str, status: int, part: str) -> None:
    """The same port answers plain GETs, and says what to do."""
    async with served() as server:
        found, body = await server.get(path)
        assert (found, part in body) == (status, True)


async def test_not_ready_while_draining() -> None:
    """A draining server is not ready, refuses new connections, and stays healthy."""
    async with served() as server:
        await server.gateway.drain()
        assert (await server.get("/readyz"))[0] == 503
        assert (await server.get("/healthz"))[0] == 200
        with pytest.raises(InvalidStatus) as refused:
            async with server.client():
                """Not reached."""
        assert refused.value.response.status_code == 503


class _Failing(MemoryStore):
    failing = False

    async def ping(self) -> None:
        if self.failing:
            raise StoreUnavailableError("gone")
        await super().ping()


async def test_not_ready_without_a_store() -> None:
    """A server whose store does not answer is not ready, and ready again when it does."""
    store = _Failing()
    async with served(store=store) as server:
        store.failing = True
        assert (await server.get("/readyz"))[0] == 503
        store.failing = False
        assert (await server.get("/readyz"))[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
async def test_nobody_listens_to_the_world_unasked(host: str) -> None:
    """Without authentication an address that others can reach is refused, with what to set."""
    async with served() as server:
        with pytest.raises(ConfigError, match="HOLDFAST_TOKENS"):
            await Gateway(server.node, authenticator=AnonymousAuthenticator()).start(host, 0)
