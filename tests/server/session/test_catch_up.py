"""Connections that a catch-up cannot serve."""

from __future__ import annotations

import pytest

from holdfast.protocol import CloseCode
from holdfast.server.session.subscriber import Subscriber
from tests.support.cluster import cluster
from tests.support.doubles import settled


async def test_a_catch_up_that_fails_closes_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """By an error of the server's own: the reader comes back over another one, and misses nothing."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        subscribers = device.session.subscribers

        async def failing(_: Subscriber) -> None:
            raise RuntimeError("a mistake in this program")

        device.wire.congested = True
        monkeypatch.setattr(subscribers, "advance", failing)
        call.say("word")
        await settled()
        device.wire.flow()
        await settled()
        assert device.wire.closed_with == CloseCode.STORE_UNAVAILABLE
        monkeypatch.undo()
        device.leave()
        await device.resume()
        assert device.text("r1") == "word"
        call.end()


async def test_one_that_does_not_read_its_catch_up_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wire that waits no longer for its reader is closed as too slow."""
    async with cluster() as h:
        device = await h.device()

        async def impatient() -> None:
            raise TimeoutError

        monkeypatch.setattr(device.wire, "drained", impatient)
        device.wire.congested = True
        await device.send("send", id="r1", text="go")
        await settled()
        assert device.wire.closed_with == CloseCode.TOO_SLOW
        (await h.puppet.call()).end()
