"""The first frame: who is there, and where it stands."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast.server.errors import AuthError
from holdfast.server.gateway.auth import Principal, TokenAuthenticator
from holdfast.server.settings import GatewaySettings
from holdfast.server.store import Log, MemoryStore
from tests.support.doubles import FakeClock
from tests.support.served import Gate, Served, served, until

TOKENS = TokenAuthenticator({"secret-a": "ana", "secret-b": "bob"})


class Expiring:
    """Takes `until:TIME` as a token of ana's, `banned` as one of somebody who may not come in."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def authenticate(self, token: str | None) -> Principal:
        """The principal."""
        if token is None:
            raise AuthError("a token is needed")
        if token == "banned":
            raise AuthError("not in here", code="forbidden")
        if token == "broken":
            raise ZeroDivisionError
        if token == "slow":
            self.asked.set()
            await asyncio.Event().wait()
        return Principal("ana" if token.startswith("until:") else "bob", int(token.rpartition(":")[2]))


async def test_welcome_says_all_there_is_to_know() -> None:
    """`welcome` carries identity, bounds and position, and `caughtUp` follows what was missed."""
    async with served() as server, server.client(hello={"device": "phone"}) as client:
        welcome = client.received[0]
        assert welcome["type"] == "welcome"
        assert (welcome["session"], welcome["principal"], welcome["device"]) == ("s", "local", "phone")
        assert (welcome["head"], welcome["resume"], welcome["heartbeatMs"]) == (0, "snapshot", 20_000)
        assert welcome["limits"] == {
            "frameBytes": 1_048_576,
            "eventBytes": 262_144,
            "messageBytes": 1_048_576,
            "commandItems": 1024,
            "commandValues": 8192,
        }
        assert "expiresAt" not in welcome
        assert [message["type"] for message in client.received] == ["welcome", "snapshot", "caughtUp"]


async def test_a_device_without_a_name_gets_one() -> None:
    """Two nameless devices are told apart."""
    async with served() as server, server.client(hello={}) as one, server.client(hello={}) as two:
        assert one.received[0]["device"] != two.received[0]["device"]
        assert one.received[0]["connection"] != two.received[0]["connection"]


async def test_unknown_fields_of_hello_are_ignored() -> None:
    """A newer client's hello is taken."""
    async with served() as server, server.client(hello={"novelty": 1}) as client:
        assert client.received[0]["type"] == "welcome"


@pytest.mark.parametrize(
    ("frame", "code", "path"),
    [
        ("{", "malformed", None),
        ("[]", "malformed", "$"),
        ('"hello"', "malformed", "$"),
        (b"\x80", "malformed", None),
        ("{}", "invalid", "$.type"),
        ('{"type":"send","id":"r","text":"early"}', "invalid", "$.type"),
        ('{"type":7}', "invalid", "$.type"),
        ('{"type":"hello","device":"-x"}', "invalid", "$.device"),
        ('{"type":"hello","messages":201}', "invalid", "$.messages"),
        ('{"type":"hello","cursor":{"epoch":"e","seq":"1"}}', "invalid", "$.cursor.seq"),
        ('{"type":"hello","x":"' + "a" * 1_100 + '"}', "too_large", None),
    ],
)
async def test_a_first_frame_that_is_no_hello(frame: str | bytes, code: str, path: str | None) -> None:
    """It gets the error that names its place, and the connection is closed for good; nothing has happened."""
    settings = GatewaySettings(hello_bytes=1_024)
    async with served(settings=settings) as server, server.client() as client:
        await client.raw(frame)
        assert await client.closed() == 4501
        (error,) = client.received
        assert (error["type"], error["code"], error.get("path")) == ("error", code, path)
        assert "id" not in error
        async with server.client(hello={}) as other:
            assert other.received[0]["head"] == 0


async def test_no_hello_in_time() -> None:
    """A connection that says nothing is closed after the hello timeout, and not before."""
    async with served() as server, server.client() as client:
        await _arrived(server)
        server.clock.advance(4_900)
        await asyncio.sleep(0)
        assert server.gateway.connections == 1
        server.clock.advance(200)
        assert await client.closed() == 4007


@pytest.mark.parametrize("hello", [{}, {"token": "wrong"}, {"token": ""}])
async def test_a_token_that_is_none(hello: dict[str, Any]) -> None:
    """A missing or wrong token is `unauthorized` and 4500; the error does not repeat it."""
    async with served(authenticator=TOKENS) as server, server.client() as client:
        await client.send("hello", **hello)
        assert await client.closed() == 4500
        (error,) = client.received
        assert error["code"] == "unauthorized"
        assert "wrong" not in error["message"]


async def test_the_token_may_come_in_the_header() -> None:
    """A bearer token of the request counts where hello has none; hello's goes first."""
    headers = {"Authorization": "Bearer secret-a"}
    async with served(authenticator=TOKENS) as server:
        async with server.client(headers=headers, hello={}) as client:
            assert client.received[0]["principal"] == "ana"
        async with server.client(headers=headers, hello={"token": "secret-b"}) as client:
            assert client.received[0]["principal"] == "bob"


async def test_somebody_who_may_not_come_in() -> None:
    """A known principal without rights is `forbidden` and 4504."""
    async with served(authenticator=Expiring()) as server, server.client() as client:
        await client.send("hello", token="banned")
        assert await client.closed() == 4504
        assert client.received[0]["code"] == "forbidden"


async def test_a_token_that_has_expired_already() -> None:
    """An expired token is as good as none."""
    async with served(authenticator=Expiring()) as server, server.client() as client:
        await client.send("hello", token=f"until:{server.clock.now()}")
        assert await client.closed() == 4500


async def test_an_authenticator_that_fails() -> None:
    """A defect behind the connection is `internal`, without a traceback, and the client may come back."""
    async with served(authenticator=Expiring()) as server, server.client() as client:
        await client.send("hello", token="broken")
        assert await client.closed() == 1011
        assert client.received[0]["code"] == "internal"
        assert "Zero" not in str(client.received)


async def test_an_authenticator_that_does_not_answer() -> None:
    """The client is told within five seconds, and comes back."""
    authenticator = Expiring()
    async with served(authenticator=authenticator) as server, server.client() as client:
        await client.send("hello", token="slow")
        await authenticator.asked.wait()
        server.clock.advance(5_000)
        assert await client.closed() == 4005
        assert client.received[0]["code"] == "unavailable"


async def test_the_connection_ends_with_its_token() -> None:
    """`welcome` says when the token expires; then the connection is closed with 4002."""
    async with served(authenticator=Expiring()) as server:
        expires_at = server.clock.now() + 60_000
        async with server.client(hello={"token": f"until:{expires_at}"}) as client:
            assert client.received[0]["expiresAt"] == expires_at
            server.clock.advance(59_000)
            assert (await client.ask("ping", id="p"))["outcome"] == "pong"
            server.clock.advance(1_000)
            assert await client.closed() == 4002


async def test_a_refreshed_token_keeps_the_connection() -> None:
    """`auth` with a later token of the same principal moves the end; bad ones change nothing."""
    async with served(authenticator=Expiring()) as server:
        now = server.clock.now()
        async with server.client(hello={"token": f"until:{now + 10_000}"}) as client:
            assert (await client.ask("auth", id="a1", token="banned"))["code"] == "forbidden"
            assert (await client.ask("auth", id="a2", token=f"other:{now + 90_000}"))["code"] == "forbidden"
            assert (await client.ask("auth", id="a3", token=f"until:{now}"))["code"] == "unauthorized"
            refreshed = await client.ask("auth", id="a4", token=f"until:{now + 30_000}")
            assert (refreshed["outcome"], refreshed["expiresAt"]) == ("refreshed", now + 30_000)
            server.clock.advance(15_000)
            assert (await client.ask("ping", id="p"))["outcome"] == "pong"
            server.clock.advance(15_000)
            assert await client.closed() == 4002


class Stuck(MemoryStore):
    """A store whose logs cannot be opened while `gate` is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()

    async def open(self, session: str, new_epoch: str, *, watcher: str | None = None) -> Log:
        """Waits for the gate."""
        self.asked.set()
        await self.gate.wait()
        return await super().open(session, new_epoch, watcher=watcher)


async def test_a_store_that_does_not_answer() -> None:
    """`hello` gets `unavailable` and 4005 within five seconds, and nothing of the client stays."""
    store = Stuck()
    async with served(store=store) as server:
        async with server.client() as client:
            await client.send("hello")
            await store.asked.wait()
            server.clock.advance(5_000)
            assert await client.closed() == 4005
            assert (client.received[0]["code"], client.received[0]["retryable"]) == ("unavailable", True)
        store.gate.set()
        async with server.client(hello={}) as again:
            assert (await again.ask("ping", id="p"))["outcome"] == "pong"
            assert len(server.node.sessions["s"].subscribers.present) == 1


async def test_commands_need_not_wait_for_welcome() -> None:
    """Commands sent right behind hello take effect in order, after it."""
    async with served() as server, server.client() as client:
        await client.send("hello")
        await client.send("send", id="r1", text="one")
        await client.send("send", id="r2", text="two")
        await client.send("cancel", id="k", runId="r9", ifUnknown="prevent")
        await client.send("ping", id="p")
        replies = [await client.until("ack", id=name) for name in ("r1", "r2", "k")]
        assert [ack["outcome"] for ack in replies] == ["started", "queued", "cancelled"]
        assert client.received[0]["type"] == "welcome"


async def test_a_cursor_from_the_future_is_a_reset() -> None:
    """A cursor beyond the head, or of another epoch, gets a snapshot and is told so; a usable one gets the tail."""
    async with served() as server:
        async with server.client(hello={}) as client:
            await client.send("send", id="r1", text="hi")
            ended = await client.until("run.ended")
            epoch = client.received[0]["epoch"]
        future = {"epoch": epoch, "seq": ended["seq"] + 5, "at": ended["at"]}
        async with server.client(hello={"cursor": future}) as client:
            assert client.received[0]["resume"] == "reset"
            assert client.received[1]["type"] == "snapshot"
        async with server.client(hello={"cursor": {"epoch": "other", "seq": 0}}) as client:
            assert client.received[0]["resume"] == "reset"
        here = {"epoch": epoch, "seq": 1, "at": server.clock.now()}
        async with server.client(hello={"cursor": here}) as client:
            assert client.received[0]["resume"] == "tail"
            assert [message["seq"] for message in client.received[1:-1]] == list(range(2, ended["seq"] + 1))


async def test_a_second_hello_is_no_command() -> None:
    """It is refused like any unknown command, and the connection goes on."""
    async with served() as server, server.client(hello={}) as client:
        await client.send("hello", id="h")
        error = await client.until("error")
        assert (error["code"], error["id"]) == ("unknown_type", "h")
        assert (await client.ask("ping", id="p"))["outcome"] == "pong"


async def test_presence_names_everybody_once() -> None:
    """Who watches is told on change."""
    gate = Gate()
    async with served(gate.agent) as server, server.client(hello={"device": "phone"}) as one:
        async with server.client(hello={"device": "laptop"}):
            server.clock.advance(1_000)
            presence = await one.until("presence", total=2)
            assert {entry["device"] for entry in presence["devices"]} == {"phone", "laptop"}
        await until(lambda: len(server.node.sessions["s"].subscribers.present) == 1)
        server.clock.advance(1_000)
        assert (await one.until("presence", total=1))["devices"][0]["device"] == "phone"


async def _arrived(server: Served) -> None:
    await until(lambda: server.gateway.connections > 0)


async def test_a_token_that_lives_longer_than_a_timer_keeps_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time to its end is waited for in pieces, and at its end it ends."""
    monkeypatch.setattr("holdfast.server.gateway.connection._LONGEST_WAIT_SECONDS", 10.0)
    token = f"until:{FakeClock().now() + 30_000}"
    async with served(authenticator=Expiring()) as server, server.client(hello={"token": token}) as client:
        for number in range(2):
            server.clock.advance(11_000)
            assert (await client.ask("ping", id=f"p{number}"))["outcome"] == "pong"
        server.clock.advance(8_000)
        assert await client.closed() == 4002
