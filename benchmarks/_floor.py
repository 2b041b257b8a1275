"""The floor: a bare `websockets` server that sends paced chunks, and does nothing else.

With `--by send` each chunk goes by `await ws.send`, with `--by write` as a ready frame into each transport, which is
the least that can be done. A connection names its room, its pace and the size of the room in its first message; when
a room is full, its chunks begin.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
from collections import defaultdict

import uvloop
from websockets.asyncio.server import ServerConnection, serve

from benchmarks._pace import MARK, TEXT_LENGTH, Pace
from benchmarks._processes import ready
from holdfast.protocol.codec import JSON_CODEC, MSGPACK_CODEC
from holdfast.server.gateway.frames import frame

_PLACE = "-" * TEXT_LENGTH


def payload(session: str, encoding: str) -> tuple[bytes, bytes]:
    """What stands before and behind a chunk's text in an event as Holdfast sends it."""
    event = {
        "type": "run.chunk",
        "seq": 1_000,
        "at": 1_795_132_800_123,
        "runId": f"r-{session}",
        "part": 0,
        "kind": "text",
        "delta": _PLACE,
    }
    codec = JSON_CODEC if encoding == "json" else MSGPACK_CODEC
    before, _, after = codec.encode(event).partition(_PLACE.encode())
    assert MARK not in before + after, "it would be counted for a chunk"
    return before, after


async def by_send(sockets: list[ServerConnection], pace: Pace, around: tuple[bytes, bytes], *, text: bool) -> None:
    """As the library sends."""
    before, after = around
    async for delta in pace.texts():
        message = before + delta.encode() + after
        for socket in sockets:
            await socket.send(message, text=text)


async def by_write(sockets: list[ServerConnection], pace: Pace, around: tuple[bytes, bytes], *, text: bool) -> None:
    """The kernel's part, and a frame's building once for all."""
    before, after = around
    transports = [socket.transport for socket in sockets]
    async for delta in pace.texts():
        ready_made = frame(before + delta.encode() + after, text=text)
        for transport in transports:
            transport.write(ready_made)


async def serve_floor(by: str) -> None:
    """Listens until the process is ended."""
    rooms: defaultdict[str, list[ServerConnection]] = defaultdict(list)
    pacing: dict[str, asyncio.Task[None]] = {}
    paced = by_send if by == "send" else by_write

    async def connected(socket: ServerConnection) -> None:
        await socket.recv()  # a word and an answer, as Holdfast's hello is one
        await socket.send("{}")
        wish = json.loads(await socket.recv())
        session, encoding = wish["session"], wish["encoding"]
        room = rooms[session]
        room.append(socket)
        if len(room) == wish["readers"]:
            sending = paced(room, Pace.of(wish["pace"]), payload(session, encoding), text=encoding == "json")
            pacing[session] = asyncio.create_task(sending)
        await socket.send("{}")
        await socket.wait_closed()
        task = pacing.pop(session, None)
        if task is not None:  # the measuring is over with the first that leaves
            task.cancel()
            rooms.pop(session)
            await asyncio.gather(task, return_exceptions=True)

    async with serve(connected, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 1_000)
        ready(next(iter(server.sockets)).getsockname()[1])
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--by", choices=["send", "write"], required=True)
    uvloop.run(serve_floor(parser.parse_args().by))
