"""What one may send who has not said yet who it is: one message of 16 KiB, and what follows waits."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.protocol import CloseCode
from holdfast.server.gateway.auth import Authenticator, Principal
from tests.support.raw_client import CONT, TEXT, RawClient, frame, message
from tests.support.served import PATIENCE_SECONDS, echo, served, until

LARGEST = 16 * 1024


def hello(size: int) -> str:
    """A hello of this size in bytes."""
    return '{"type":"hello","extra":"' + "x" * (size - 27) + '"}'


async def test_the_largest_hello() -> None:
    """One of 16 KiB is a hello like any other."""
    async with served() as server, server.client() as client:
        await client.raw(hello(LARGEST))
        await client.until("caughtUp")


async def test_a_larger_one() -> None:
    """It is refused with a word, unread."""
    async with served() as server, server.client() as client:
        await client.raw(hello(LARGEST + 1))
        assert (await client.until("error"))["code"] == "too_large"
        assert await client.closed() == CloseCode.NOT_HELLO


@pytest.mark.parametrize(
    "pieces",
    [
        [frame(TEXT, b"x" * 1_000_000)[:-1]],
        [frame(TEXT, b"x" * 100, fin=False), *[frame(CONT, b"x" * 9_000, fin=False)] * 4],
    ],
    ids=["a frame", "fragments"],
)
async def test_one_that_does_not_end(pieces: list[bytes]) -> None:
    """After 32 KiB the connection is closed: what is not whole yet is held for nobody."""
    async with served() as server, RawClient.open(server) as client:
        client.send(*pieces)
        assert await client.closed() == CloseCode.TOO_BIG


class Slow(Authenticator):
    """Takes its time."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.let = asyncio.Event()

    async def authenticate(self, token: str | None) -> Principal:
        """When it is let."""
        self.asked.set()
        await self.let.wait()
        return Principal("ana")


async def test_what_follows_a_hello_waits_in_the_network() -> None:
    """What is sent behind a hello is not taken before the token was accepted, and all of it then, in its order."""
    slow = Slow()
    async with served(echo, authenticator=slow) as server, RawClient.open(server) as client:
        client.send(message("hello"), *(message("send", id=f"r{n}", text="x" * 200_000) for n in range(8)))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await slow.asked.wait()
        (socket,) = server.gateway._sockets  # pyright: ignore[reportPrivateUsage]
        await until(lambda: not socket.transport.is_reading())
        assert not socket.waits
        assert len(socket._held) <= 256 * 1024  # pyright: ignore[reportPrivateUsage]
        slow.let.set()
        for number in range(8):
            assert (await client.until("ack", id=f"r{number}"))["outcome"] in ("started", "queued")
