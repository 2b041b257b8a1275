"""What a client said before it left counts, however it left."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from holdfast.protocol import CloseCode
from holdfast.server.agents.run import Run
from holdfast.server.settings import GatewaySettings
from tests.server.gateway.test_commands import Slow
from tests.support.raw_client import PING, TEXT, RawClient, close, frame, message
from tests.support.served import Gate, served, until

End = Callable[[RawClient, bytes], None]


def _closing(client: RawClient, words: bytes) -> None:
    client.send(words, close())


def _closing_without_a_code(client: RawClient, words: bytes) -> None:
    client.send(words, frame(0x8))


def _ending(client: RawClient, words: bytes) -> None:
    client.send(words)
    client.end()


def _breaking_the_protocol(client: RawClient, words: bytes) -> None:
    client.send(words, b"\xff\xff\xff\xff")


def _sending_what_is_no_text(client: RawClient, words: bytes) -> None:
    client.send(words, frame(TEXT, b"\xff"))


ENDS = (_closing, _closing_without_a_code, _ending, _breaking_the_protocol, _sending_what_is_no_text)


async def asking(run: Run) -> None:
    """An agent that asks, and waits for the answer."""
    await run.ask("input", prompt="well?")


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
@pytest.mark.parametrize("pipelined", [False, True], ids=["live", "behind hello"])
async def test_a_stop_counts_however_its_sender_leaves(end: End, pipelined: bool) -> None:
    """A cancel is done that came in one breath with the end of its connection, also right behind `hello`."""
    gate = Gate()
    async with served(gate.agent) as server, server.client(hello={}) as other:
        await other.send("send", id="r", text="go")
        await other.until("run.chunk")
        async with RawClient.open(server) as leaving:
            if pipelined:
                end(leaving, message("hello") + message("cancel", id="k", runId="r"))
            else:
                leaving.send(message("hello"))
                await leaving.until("caughtUp")
                end(leaving, message("cancel", id="k", runId="r"))
            assert (await other.until("run.ended"))["reason"] == "cancelled"
            await leaving.gone()
            await until(lambda: server.gateway.connections == 1)
            assert len(server.node.sessions["s"].subscribers.present) == 1


async def test_a_stop_counts_though_the_line_is_cut() -> None:
    """A cancel that was read before the connection was reset is done."""
    gate = Gate()
    async with served(gate.agent) as server, server.client(hello={}) as other:
        await other.send("send", id="r", text="go")
        await other.until("run.chunk")
        async with RawClient.open(server, live=True) as leaving:
            leaving.send(message("cancel", id="k", runId="r"))
            leaving.reset()
            assert (await other.until("run.ended"))["reason"] == "cancelled"


@pytest.mark.parametrize("kind", ["send", "steer", "withdraw", "answer"])
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
async def test_every_command_counts_however_its_sender_leaves(kind: str, end: End) -> None:
    """What is true of a cancel is true of every command that changes something."""
    async with served(asking) as server, server.client(hello={}) as other:
        await other.send("send", id="r", text="go")
        request = await other.until("run.requested")
        if kind == "withdraw":
            await other.ask("steer", id="s1", runId="r", text="left", boundary="step")
        async with RawClient.open(server, live=True) as leaving:
            words = {
                "send": message("send", id="r2", text="and then", whenBusy="queue"),
                "steer": message("steer", id="s2", runId="r", text="right", boundary="step"),
                "withdraw": message("withdraw", id="w", steerId="s1"),
                "answer": message("answer", id="a", runId="r", requestId=request["request"]["id"], value=True),
            }
            end(leaving, words[kind])
            expected = {
                "send": ("run.queued", {"runId": "r2"}),
                "steer": ("steer.accepted", {"steerId": "s2"}),
                "withdraw": ("steer.withdrawn", {"steerId": "s1"}),
                "answer": ("run.resolved", {"requestId": request["request"]["id"]}),
            }
            event, fields = expected[kind]
            await other.until(event, lambda message: fields.items() <= message.items())


@pytest.mark.parametrize("lost", [False, True], ids=["closing", "lost"])
async def test_a_stop_counts_that_came_while_its_sender_was_let_in(lost: bool) -> None:
    """One who leaves waits for no welcome: the cancel goes its way, whatever still holds up the welcome."""
    gate, store = Gate(), Slow()
    async with served(gate.agent, store=store) as server, server.client(hello={}) as other:
        await other.send("send", id="r", text="go")
        await other.until("run.chunk")
        session = server.node.sessions["s"]
        appends = store.appends
        store.open_gate.clear()
        await other.send("send", id="r2", text="later", whenBusy="queue")
        await until(lambda: store.appends > appends)
        async with RawClient.open(server) as leaving:
            leaving.send(message("hello"), message("cancel", id="k", runId="r"), b"" if lost else close())
            await until(lambda: server.gateway.connections == 2)
            if lost:
                await leaving.gone()
            # It is with the session, and has waited for nothing.
            await until(lambda: session._mailbox.commands == 2)  # pyright: ignore[reportPrivateUsage]
            store.open_gate.set()
            assert (await other.until("run.ended"))["reason"] == "cancelled"
            assert len(session.subscribers.present) == 1


async def test_all_that_was_read_counts_though_too_many_wait_for_their_reply() -> None:
    """A connection that is lost while the server waited for room is heard out, as far as it was read."""
    store = Slow()
    settings = GatewaySettings(commands_in_flight=2)
    async with (
        served(store=store, settings=settings) as server,
        server.client(hello={}) as other,
        RawClient.open(server, live=True) as leaving,
    ):
        store.open_gate.clear()
        leaving.send(*[message("send", id=f"r{n}", text="x", whenBusy="queue") for n in range(60)])
        await until(lambda: server.node.sessions["s"].pending)
        connection = next(connection for connection in server.gateway._connections if connection._in_flight)  # pyright: ignore[reportPrivateUsage]
        await until(lambda: connection._room is not None)  # pyright: ignore[reportPrivateUsage]
        connection.cut()
        await until(lambda: server.gateway.connections == 1)
        store.open_gate.set()
        await other.until("run.queued", runId="r59")


async def test_what_comes_after_the_server_began_to_close_is_for_nobody() -> None:
    """What was read before counts, what comes later does not: the client was told, and brings it again."""
    gate = Gate()
    async with served(gate.agent) as server, server.client(hello={}) as other:
        await other.send("send", id="r", text="go")
        await other.until("run.chunk")
        async with RawClient.open(server, live=True) as sent_away:
            connection = list(server.gateway._connections)[-1]  # pyright: ignore[reportPrivateUsage]
            connection.wire.close(CloseCode.DRAINING, "draining")
            sent_away.send(message("cancel", id="k", runId="r"), close(4001))
            assert await sent_away.closed() == 4001
            await sent_away.gone()
            await until(lambda: server.gateway.connections == 1)
            gate.opened.set()
            assert (await other.until("run.ended"))["reason"] == "completed"


async def test_what_was_read_when_the_server_began_to_close_counts() -> None:
    """Also where it waits, unparsed, behind other commands of its connection."""
    store = Slow()
    settings = GatewaySettings(commands_in_flight=2)
    async with (
        served(store=store, settings=settings) as server,
        server.client(hello={}) as other,
        RawClient.open(server, live=True) as sent_away,
    ):
        store.open_gate.clear()
        sent_away.send(*[message("send", id=f"r{n}", text="x" * 500, whenBusy="queue") for n in range(60)])
        connection = list(server.gateway._connections)[-1]  # pyright: ignore[reportPrivateUsage]
        await until(lambda: connection._room is not None)  # pyright: ignore[reportPrivateUsage]
        connection.wire.close(CloseCode.DRAINING, "draining")
        store.open_gate.set()
        await other.until("run.queued", runId="r59")
        sent_away.send(close(4001))
        assert await sent_away.closed() == 4001


async def test_a_client_is_heard_out_before_it_is_sent_away_for_a_flood() -> None:
    """A cancel before a flood of pings in the same breath is done; the flood ends the connection."""
    gate = Gate()
    async with served(gate.agent) as server, server.client(hello={}) as other:
        await other.send("send", id="r", text="go")
        await other.until("run.chunk")
        async with RawClient.open(server, live=True) as flooding:
            flooding.send(message("cancel", id="k", runId="r"), frame(PING) * 2_000)
            assert (await other.until("run.ended"))["reason"] == "cancelled"
            assert await flooding.closed() == 4006
