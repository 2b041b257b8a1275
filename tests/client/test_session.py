"""The asyncio client against a server that misbehaves on purpose."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Literal

import pytest

from holdfast.client import (
    BusyError,
    ClientClosedError,
    ConnectionClosedError,
    ConnectionFailedError,
    InvalidCommandError,
    Lagged,
    Reset,
    Run,
    Session,
    TooLargeError,
    UnknownRunError,
    connect,
)
from holdfast.protocol import Position
from tests.client.fake_server import FakeServer


async def read(run: Run) -> str:
    """All text of a run."""
    return "".join([text async for text in run])


async def started(server: FakeServer, session: Session, **options: Any) -> Run:
    """A run that this client sent and the server has started."""
    sending = asyncio.ensure_future(session.send("hi", **options))
    command = await server.command("send")
    await server.start_run(command["id"])
    await server.ack(command, "started", runId=command["id"], seq=len(server.log))
    return await sending


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_send_and_read(server: FakeServer, encoding: Literal["msgpack", "json"]) -> None:
    """A sent run yields its text and ends, in both encodings."""
    async with connect(server.url, session="trip", encoding=encoding) as session:
        run = await started(server, session)
        reading = asyncio.ensure_future(read(run))
        await server.text(run.id, "Hello")
        await server.text(run.id, ", world")
        await server.end_run(run.id, usage={"tokens": 3})
        assert await reading == "Hello, world"
        result = await run.wait()
        assert (result.text, result.reason, result.usage) == ("Hello, world", "completed", {"tokens": 3})
        assert [message["role"] for message in session.messages] == ["user", "assistant"]
        assert session.runs == {run.id: run}


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_what_was_wrapped_deeply_is_read(server: FakeServer, encoding: Literal["msgpack", "json"]) -> None:
    """A log that holds a value deeper than a client may send does not lock its readers out."""
    value: Any = 0
    for _ in range(40):
        value = [value]
    async with connect(server.url, session="trip", encoding=encoding) as session:
        run = await started(server, session)
        await server.append("run.note", value=value)
        await server.end_run(run.id)
        async with asyncio.timeout(5):
            assert (await run.wait()).reason == "completed"
    assert len(server.hellos) == 1


async def test_more_values_than_the_server_takes(server: FakeServer) -> None:
    """They are refused here: no reply of the server could name the command, and it would be sent for ever."""
    metadata: dict[str, Any] = {str(row): ["x"] * 1000 for row in range(9)}
    async with connect(server.url, session="trip") as session:
        with pytest.raises(InvalidCommandError, match="at most 8192 values"):
            await session.send("hi", metadata=metadata)


async def test_resume_after_a_cut(server: FakeServer) -> None:
    """After a cut line the client comes back with its cursor and the reader misses and doubles nothing."""
    async with connect(server.url, session="trip") as session:
        run = await started(server, session)
        reader = aiter(run)
        await server.text(run.id, "one ")
        assert await anext(reader) == "one "
        server.drop()
        server.event("run.chunk", runId=run.id, part=0, kind="text", delta="two ")
        async with asyncio.timeout(5):
            await server.connected.wait()
        await server.text(run.id, "three")
        await server.end_run(run.id)
        assert "".join([text async for text in reader]) == "two three"
    assert server.hellos[1]["cursor"] == {"epoch": "E1", "seq": 3, "at": 1_003}


async def test_snapshot_instead_of_a_tail(server: FakeServer) -> None:
    """A reset by snapshot is announced, and a reader goes on where it was without doubling."""
    async with connect(server.url, session="trip") as session:
        run = await started(server, session)
        events = session.events()
        reader = aiter(run)
        await server.text(run.id, "one ")
        assert await anext(reader) == "one "
        server.drop()
        server.event("run.chunk", runId=run.id, part=0, kind="text", delta="two ")
        server.kept_from = 4
        server.epoch = "E2"
        async with asyncio.timeout(5):
            await server.connected.wait()
        await server.end_run(run.id)
        assert "".join([text async for text in reader]) == "two "
        chunk, reset = await anext(events), await anext(events)
        assert not isinstance(chunk, (Reset, Lagged))
        assert chunk["seq"] == 3
        assert reset == Reset({"epoch": "E2", "seq": 4}, new_epoch=True)


async def test_gap_is_lost_contact(server: FakeServer) -> None:
    """An event that leaves a gap makes the client reconnect and get what it missed."""
    async with connect(server.url, session="trip") as session:
        run = await started(server, session)
        server.connected.clear()
        server.event("run.chunk", runId=run.id, part=0, kind="text", delta="lost ")
        await server.say(server.event("run.chunk", runId=run.id, part=0, kind="text", delta="found"))
        async with asyncio.timeout(5):
            await server.connected.wait()
        await server.end_run(run.id)
        assert await read(run) == "lost found"


async def test_offline_cancel_arrives(server: FakeServer) -> None:
    """A cancel pressed while nobody is there is sent when the server is back."""
    async with connect(server.url, session="trip") as session:
        run = await started(server, session)
        await server.stop()
        cancelling = asyncio.ensure_future(run.cancel())
        await session.changed()
        await server.start()
        command = await server.command("cancel")
        assert (command["runId"], command["ifUnknown"]) == (run.id, "ignore")
        ended = await server.end_run(run.id, "cancelled")
        await server.ack(command, "cancelled", runId=run.id, seq=ended["seq"])
        assert (await cancelling).outcome == "cancelled"


async def test_send_is_repeated_with_the_same_id(server: FakeServer) -> None:
    """A send whose acknowledgement was lost is sent again unchanged, and its cancel behind it prevents."""
    async with connect(server.url, session="trip") as session:
        sending = asyncio.ensure_future(session.send("hi", run_id="mine"))
        first = await server.command("send")
        cancelling = asyncio.ensure_future(session.cancel("mine"))
        cancel = await server.command("cancel")
        assert cancel["ifUnknown"] == "prevent"
        server.drop()
        assert await server.command() == first
        assert await server.command() == cancel
        await server.end_run("mine", "cancelled", cause="prevented")
        await server.ack(first, "ended", runId="mine", reason="cancelled", seq=1)
        await server.ack(cancel, "already_ended", runId="mine", reason="cancelled", seq=1)
        run = await sending
        assert (run.status, await read(run)) == ("ended", "")
        assert (await cancelling).reason == "cancelled"


async def test_cancelled_caller_leaves_the_command(server: FakeServer) -> None:
    """Giving up the wait for an acknowledgement does not take the command back."""
    async with connect(server.url, session="trip") as session:
        sending = asyncio.ensure_future(session.send("hi", run_id="mine"))
        await server.command("send")
        sending.cancel()
        await asyncio.wait([sending])
        server.drop()
        command = await server.command("send")
        await server.start_run("mine")
        await server.ack(command, "started", runId="mine", seq=2)
        await server.end_run("mine")
        while session.run("mine").status == "unknown":
            await session.changed()
        assert (await session.run("mine").wait()).reason == "completed"
        server.drop()
        async with asyncio.timeout(5):
            await server.connected.wait()
        assert server.silent()


async def test_seen_is_what_was_taken(server: FakeServer) -> None:
    """A cancel carries the position of what the iteration took, nothing without iteration, or what is given."""
    async with connect(server.url, session="trip") as session:
        run = await started(server, session)
        reader = aiter(run)
        await server.text(run.id, "seen")
        assert await anext(reader) == "seen"
        await server.text(run.id, " unseen")
        while session.position["seq"] < 4:
            await session.changed()
        cases: list[tuple[Literal["taken"] | None, Position | None]] = [
            ("taken", {"epoch": "E1", "seq": 3}),
            (None, None),
        ]
        for seen, expected in cases:
            cancelling = asyncio.ensure_future(run.cancel(seen=seen))
            command = await server.command("cancel")
            assert command.get("seen") == expected
            await server.ack(command, "unknown_run")
            await cancelling
        other = session.run("other")
        cancelling = asyncio.ensure_future(other.cancel())
        command = await server.command("cancel")
        assert "seen" not in command
        await server.ack(command, "unknown_run")
        assert (await cancelling).outcome == "unknown_run"


async def test_old_run_from_history(server: FakeServer) -> None:
    """A run that ended before anything held here is read from the history; one that nobody knows is an error."""
    server.history = [{}]
    async with connect(server.url, session="trip") as session:
        reading = asyncio.ensure_future(read(session.run("old")))
        command = await server.command("history")
        old = {
            "id": "a-old",
            "role": "assistant",
            "parts": [{"kind": "text", "text": "long ago"}],
            "at": 1,
            "seq": 1,
            "after": None,
            "runId": "old",
            "status": "interrupted",
            "reason": "lost",
        }
        await server.say({"type": "page", "id": command["id"], "messages": [], "more": False, "last": False})
        await server.say({"type": "page", "id": command["id"], "messages": [old], "more": False, "last": True})
        assert await reading == "long ago"
        waiting = asyncio.ensure_future(session.run("none").wait())
        command = await server.command("history")
        await server.say({"type": "page", "id": command["id"], "messages": [], "more": False, "last": True})
        with pytest.raises(UnknownRunError):
            await waiting


async def test_a_failed_run_tells_a_latecomer_why(server: FakeServer) -> None:
    """Who comes after a run has failed, while the snapshot names it, gets its error, cause and usage."""
    error = {"code": "agent_error", "message": "The agent failed."}
    await server.start_run("r-1")
    await server.text("r-1", "half")
    await server.end_run("r-1", "failed", error=error, usage={"tokens": 3})
    async with connect(server.url, session="trip") as session:
        result = await session.run("r-1").wait()
    assert (result.reason, result.text, result.error, result.usage) == ("failed", "half", error, {"tokens": 3})


async def test_refusals(server: FakeServer) -> None:
    """Errors of the server are raised by class; those that pass by waiting are tried again with the same id."""
    async with connect(server.url, session="trip") as session:
        sending = asyncio.ensure_future(session.send("hi", when_busy="reject"))
        command = await server.command("send")
        error = {"type": "error", "id": command["id"], "message": "later", "retryable": True}
        await server.say({**error, "code": "rate_limited", "retryAfterMs": 1})
        assert await server.command("send") == command
        await server.say({**error, "code": "busy", "retryable": False})
        with pytest.raises(BusyError) as caught:
            await sending
        assert (caught.value.code, caught.value.retryable) == ("busy", False)


async def test_local_refusals(server: FakeServer) -> None:
    """What the server would refuse for its form or size is refused before it is sent."""
    async with connect(server.url, session="trip") as session:
        with pytest.raises(TooLargeError):
            await session.send("x" * 70_000)
        with pytest.raises(InvalidCommandError) as caught:
            await session.steer("hi", run_id="no id!")
        assert caught.value.path == "$.runId"
        with pytest.raises(InvalidCommandError) as caught:
            await session.answer("r", "q", [*range(1_025)])
        assert caught.value.path == "$.value"
    assert server.silent()


async def test_final_close(server: FakeServer) -> None:
    """A close code that is final ends every wait with it, and no further connection is made."""
    async with connect(server.url, session="trip") as session:
        run = await started(server, session)
        waiting = asyncio.gather(run.wait(), read(run), session.cancel("x"), return_exceptions=True)
        await server.command("cancel")
        await server.close(4505, "by operator")
        for error in await waiting:
            assert isinstance(error, ConnectionClosedError)
            assert error.close_code == 4505
        assert session.status == "closed"
        with pytest.raises(ConnectionClosedError):
            await session.send("hi")
    assert len(server.hellos) == 1


async def test_refused_token(server: FakeServer) -> None:
    """Opening raises what the server closed with when it refuses for good."""
    server.refuse = (4500, "token rejected")
    with pytest.raises(ConnectionClosedError) as caught:
        async with connect(server.url, session="trip", token="bad"):
            pass
    assert caught.value.close_code == 4500


@pytest.mark.parametrize(
    ("said", "again"),
    [
        (b"", True),
        (b"HTTP/1.1 1", True),
        (b"SSH-2.0-x\r\n", False),
        (b"HTTP/1.1 429 Too Many Requests\r\n\r\n", True),
        (b"HTTP/1.1 503 Unavailable\r\n\r\n", True),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", False),
    ],
)
async def test_hang_up_during_the_handshake(said: bytes, again: bool) -> None:
    """A server that goes away during the handshake, or asks to be spared, is tried again; one that refuses is not."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as listening:
        url = f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        async with connect(url, session="trip", open_timeout=None) as session:
            with suppress(ConnectionFailedError):
                await session.changed()  # it opens
                await session.changed()  # it has failed
            assert session.trouble is not None
            assert session.trouble.retryable is again
            assert (session.status == "offline") is again


async def test_token_function(server: FakeServer) -> None:
    """A token function is asked at every connect."""
    tokens = iter(["first", "second"])

    async def token() -> str:
        return next(tokens)

    async with connect(server.url, session="trip", token=token):
        await server.close(4002, "token expired")
        async with asyncio.timeout(5):
            await server.connected.wait()
    assert [hello["token"] for hello in server.hellos] == ["first", "second"]


async def test_nobody_there(server: FakeServer) -> None:
    """Opening gives up after its timeout and says why."""
    await server.stop()
    with pytest.raises(ConnectionFailedError, match="cannot be reached"):
        await connect(server.url, session="trip", open_timeout=0.05)
    await server.start()


async def test_cancel_all_keeps_what_was_seen(server: FakeServer) -> None:
    """A cancel of the whole session carries what was on screen, and up to where it reaches."""
    async with connect(server.url, session="trip") as session:
        run = await started(server, session)
        seen: Position = {"epoch": "E1", "seq": 1}
        cancelling = asyncio.ensure_future(session.cancel_all(seen=seen))
        command = await server.command("cancel")
        assert (command["scope"], command["upTo"]["seq"], command["seen"]) == ("session", 2, seen)
        await server.ack(command, "cancelled", runIds=[run.id])
        assert (await cancelling).run_ids == [run.id]


async def test_closing_ends_waits_and_nothing_else(server: FakeServer) -> None:
    """Closing the client raises ClientClosedError in its waiters and sends no command."""
    session = await connect(server.url, session="trip")
    run = await started(server, session)
    waiting = asyncio.ensure_future(run.wait())
    await asyncio.sleep(0)
    await session.close()
    await session.close()
    with pytest.raises(ClientClosedError):
        await waiting
    assert server.silent()


async def test_silence_is_a_dead_socket(server: FakeServer) -> None:
    """A socket that is silent for two heartbeats is dropped, and the client comes back."""
    server.heartbeat_ms = 20
    async with connect(server.url, session="trip") as session:
        server.connected.clear()
        server.heartbeat_ms = 60_000
        async with asyncio.timeout(5):
            await server.connected.wait()
        await session.wait_live()
    assert len(server.hellos) == 2


async def test_ping_gets_pong(server: FakeServer) -> None:
    """A ping gets a pong, and one that names more than is here is lost contact."""
    async with connect(server.url, session="trip"):
        await server.say({"type": "ping", "head": 0})
        await server.command("pong")
        server.connected.clear()
        await server.say({"type": "ping", "head": 7})
        async with asyncio.timeout(5):
            await server.connected.wait()


async def test_slow_reader_is_told(server: FakeServer) -> None:
    """A reader of events with a full buffer loses the oldest, and is told how many."""
    async with connect(server.url, session="trip") as session:
        run = await started(server, session)
        events = run.events(buffer=2)
        for delta in "abc":
            await server.text(run.id, delta)
        await server.end_run(run.id)
        while run.status != "ended":
            await session.changed()
        assert [event async for event in events] == [Lagged(2), *server.log[-2:]]


async def test_batched_frame_and_merged_event(server: FakeServer) -> None:
    """A frame may hold several messages, and an event may stand for several."""
    async with connect(server.url, session="trip") as session:
        run = await started(server, session)
        for delta in "ab":
            server.event("run.chunk", runId=run.id, part=0, kind="text", delta=delta)
        merged = {**server.log[-1], "from": 3, "delta": "ab"}
        await server.say([merged, server.event("run.ended", runId=run.id, reason="completed", returned=[])])
        assert await read(run) == "ab"
        assert session.position == {"epoch": "E1", "seq": 5}


def test_addresses() -> None:
    """Addresses and ids that cannot be are refused before anything is opened."""
    for url, session in (("ftp://x", "a"), ("127.0.0.1:1", "a"), ("ws://x", "no id!")):
        with pytest.raises(ValueError, match="is no"):
            connect(url, session=session)
    with pytest.raises(ValueError, match="device"):
        connect("ws://x", session="a", device="ä")
    with pytest.raises(ValueError, match="201 messages"):
        connect("ws://x", session="a", messages=201)
    with pytest.raises(ValueError, match="'xml' is no encoding"):
        connect("ws://x", session="a", encoding="xml")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_a_newer_token_is_used_from_then_on(server: FakeServer) -> None:
    """A token that was refreshed replaces the one given as a string, for the next connection; a function is asked."""
    for given, used in (("old", "new"), (lambda: "asked", "asked")):
        async with connect(server.url, session="trip", token=given) as session:
            refreshing = asyncio.ensure_future(session.refresh_token("new"))
            command = await server.command("auth")
            await server.ack(command, "refreshed", expiresAt=2_000)
            assert (command["token"], await refreshing) == ("new", 2_000)
            server.drop()
            async with asyncio.timeout(5):
                await server.connected.wait()
        assert server.hellos[-1]["token"] == used


async def test_trouble_is_over_when_a_connection_is_open(server: FakeServer) -> None:
    """Why no connection could be opened is told until one is."""
    async with connect(server.url, session="trip") as session:
        await server.stop()
        async with asyncio.timeout(5):
            while session.trouble is None:
                await session.changed()
        await server.start()
        async with asyncio.timeout(5):
            await session.wait_live()
        assert session.trouble is None


async def test_history_is_read_back_to_the_message(server: FakeServer) -> None:
    """An old run is looked for page by page, each before the one it follows, and an empty page ends the search."""
    server.history = [{}]
    async with connect(server.url, session="trip") as session:
        waiting = asyncio.ensure_future(session.run("old").wait())
        for before, seqs in ((None, [7, 9]), (7, [3, 5]), (3, [])):
            command = await server.command("history")
            assert command.get("before") == before
            messages: list[dict[str, Any]] = [
                {"id": f"m-{seq}", "role": "user", "parts": [], "seq": seq} for seq in seqs
            ]
            await server.say({"type": "page", "id": command["id"], "messages": messages, "more": True, "last": True})
        with pytest.raises(UnknownRunError):
            async with asyncio.timeout(5):
                await waiting


async def test_an_answer_may_be_null(server: FakeServer) -> None:
    """The value of an answer is told also where it is null, other fields without a value are left out."""
    async with connect(server.url, session="trip") as session:
        answering = session.answer("r-1", "q", None)
        command = await server.command("answer")
        assert {**command, "id": ""} == {"type": "answer", "id": "", "runId": "r-1", "requestId": "q", "value": None}
        await server.ack(command, "accepted")
        assert (await answering).outcome == "accepted"


async def test_cancel_all_up_to_a_place(server: FakeServer) -> None:
    """A cancel of the whole session reaches as far as it is told to."""
    async with connect(server.url, session="trip") as session:
        place: Position = {"epoch": "E1", "seq": 0}
        await started(server, session)
        cancelling = session.cancel_all(up_to=place)
        command = await server.command("cancel")
        assert command["upTo"] == place
        await server.ack(command, "cancelled", runIds=[])
        assert (await cancelling).run_ids == []


async def test_a_client_that_cannot_go_on_tells_everyone(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody foresaw ends the client with its cause, for whoever waits, and is in the log."""
    async with connect(server.url, session="trip") as session:
        cancel = session.cancel("r-1")
        missing = ImportError("no package for this proxy")

        def fail(*_: object, **__: object) -> None:
            raise missing

        monkeypatch.setattr("holdfast.client.link.open_websocket", fail)
        server.drop()
        with pytest.raises(ConnectionFailedError, match="no package for this proxy") as caught:
            async with asyncio.timeout(5):
                await cancel
        assert caught.value.__cause__ is missing
        assert not caught.value.retryable
    assert "the client cannot go on" in caplog.text


async def test_reading_events_is_having_seen_them(server: FakeServer) -> None:
    """A cancel says up to where the run's events were taken, and not what still waits for their reader."""
    async with connect(server.url, session="trip") as session:
        run = await started(server, session)
        events = run.events()
        await server.text(run.id, "seen")
        await server.text(run.id, " unseen")
        async with asyncio.timeout(5):
            assert await anext(events) == server.log[-2]
        assert run.seen == {"epoch": "E1", "seq": 3}


async def test_events_that_come_while_the_end_is_looked_for_are_told(server: FakeServer) -> None:
    """A feed ends when all was told, also what came while it looked for the run in the history."""
    server.history = [{}]
    async with connect(server.url, session="trip") as session:
        reading = asyncio.ensure_future(anext(session.run("r-1").events()))
        command = await server.command("history")
        await server.start_run("r-1")
        await server.end_run("r-1")
        old: dict[str, Any] = {
            "id": "a",
            "role": "assistant",
            "parts": [],
            "seq": 1,
            "runId": "r-1",
            "status": "complete",
        }
        await server.say({"type": "page", "id": command["id"], "messages": [old], "more": False, "last": True})
        async with asyncio.timeout(5):
            assert await reading == server.log[0]


async def test_a_frame_of_several_large_messages_is_read(server: FakeServer) -> None:
    """What the server may put into one frame, twice its bound for a message, does not end the connection."""
    async with connect(server.url, session="trip") as session:
        run = await started(server, session)
        half = "x" * 700_000
        chunks = [server.event("run.chunk", runId=run.id, part=0, kind="text", delta=half) for _ in range(2)]
        await server.say([*chunks, server.event("run.ended", runId=run.id, reason="completed", returned=[])])
        assert await read(run) == 2 * half
    assert len(server.hellos) == 1


async def test_a_lost_line_is_dropped_without_a_goodbye(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who lost contact waits for no goodbye of a server that may be gone, and connects again at once."""
    monkeypatch.setattr("holdfast.client.link.CLOSE_SECONDS", 3_600)
    async with connect(server.url, session="trip"):
        hear = server.deafen()
        server.connected.clear()
        await server.say({"type": "ping", "head": 7})
        async with asyncio.timeout(5):
            await server.connected.wait()
        hear()


async def test_what_was_seen_never_goes_back_within_an_epoch(server: FakeServer) -> None:
    """What was taken of a run grows, and begins anew with another log."""
    async with connect(server.url, session="trip") as session:
        run = session.run("r-1")
        for epoch, seq, seen in (("E1", 9, 9), ("E1", 4, 9), ("E2", 1, 1)):
            run._take({"epoch": epoch, "seq": seq})  # pyright: ignore[reportPrivateUsage]
            assert run.seen == {"epoch": epoch, "seq": seen}


async def test_a_prevented_run_is_not_looked_for(server: FakeServer) -> None:
    """A run that the acknowledgement of its send says was prevented has ended, and has no message in the history."""
    server.history = [{}]
    async with connect(server.url, session="trip") as session:
        sending = session.send("hi", run_id="mine")
        await server.ack(await server.command("send"), "ended", runId="mine", reason="cancelled", cause="prevented")
        async with asyncio.timeout(5):
            result = await (await sending).wait()
        assert (result.reason, result.message) == ("cancelled", None)
        assert server.silent()


async def test_a_run_is_unknown_only_after_the_first_contact(server: FakeServer) -> None:
    """Who waits for a run before there was any connection waits for the connection."""
    await server.start_run("r-1")
    await server.end_run("r-1")
    async with connect(server.url, session="trip", open_timeout=None) as session, asyncio.timeout(5):
        assert (await session.run("r-1").wait()).reason == "completed"


async def test_an_open_run_of_a_closed_client(server: FakeServer) -> None:
    """Waiting for a run that goes on raises ClientClosedError at once where the client is closed already."""
    async with connect(server.url, session="trip") as session:
        run = await started(server, session)
    async with asyncio.timeout(5):
        with pytest.raises(ClientClosedError):
            await run.wait()
