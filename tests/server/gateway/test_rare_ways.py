"""What seldom happens to a connection: more pongs than heartbeats, a drain that begins while it comes, and the like."""

from __future__ import annotations

from holdfast.server.limits import GatewaySettings
from tests.server.gateway.harness import served, until
from tests.server.gateway.test_rates import SLOW
from tests.server.gateway.test_waiting import Held


async def test_only_as_many_pongs_are_free_as_were_asked_for() -> None:
    """One pong for each heartbeat is not weighed; those that come behind it are, as every other message."""
    async with served(settings=SLOW) as server, server.client(hello={}) as client:
        server.clock.advance(20_000)
        await client.until("ping")
        for _ in range(15):
            await client.send("pong")
        assert (await client.ask("ping", id="p")).get("code") == "rate_limited"


async def test_one_that_catches_up_gets_no_heartbeat() -> None:
    """While the store holds up what it missed it is not asked whether it lives, however well it reads."""
    store = Held()
    async with (
        served(store=store, settings=GatewaySettings(heartbeat_ms=1_000)) as server,
        server.client(hello={}) as writer,
    ):
        await writer.send("send", id="r", text="hi")
        await writer.until("run.ended")
        server.clock.advance(2_000)
        await until(lambda: len(store.archived) == 2)
        store.held = True
        async with server.client() as client:
            await client.send("hello")
            await client.until("welcome")
            server.clock.advance(1_000)
            assert (await client.ask("nonsense", id="n"))["code"] == "unknown_type"
            assert not client.of_type("ping")
