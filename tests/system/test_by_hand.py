"""The wire as PROTOCOL.md shows it, spoken with a plain WebSocket and the standard library's JSON."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from websockets.asyncio.client import connect

from tests.support.program import ROOT, SECONDS, Serve

PROTOCOL = (ROOT / "protocol" / "PROTOCOL.md").read_text()


def shown(direction: str, type_: str) -> dict[str, Any]:
    """The first message of this type that PROTOCOL.md shows."""
    found = re.search(rf'^ +{direction} (\{{"type":"{type_}".*?\}})$', PROTOCOL, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no {type_} is shown"
    example: dict[str, Any] = json.loads(re.sub(r"\n +", "", found[1]))
    return example


async def test_the_first_example_of_the_protocol(demo: Serve, session: str) -> None:
    """The `hello` of the protocol's first example is welcomed with the fields shown there, then the session is live."""
    async with connect(f"{demo.url}/v1/sessions/{session}", proxy=None) as socket, asyncio.timeout(SECONDS):

        async def heard() -> dict[str, Any]:
            frame = await socket.recv()
            assert isinstance(frame, str)
            message: dict[str, Any] = json.loads(frame)
            return message

        example = shown("→", "hello")
        await socket.send(json.dumps(example))
        welcome = await heard()
        # Here tokens do not expire, and the example's log is another one than ours.
        assert welcome.keys() == shown("←", "welcome").keys() - {"expiresAt"}
        assert welcome["limits"] == shown("←", "welcome")["limits"]
        assert (welcome["device"], welcome["resume"], welcome["head"]) == (example["device"], "reset", 0)
        snapshot = await heard()
        assert (snapshot["type"], snapshot["seq"], snapshot["last"]) == ("snapshot", 0, True)
        caught_up = await heard()
        assert caught_up.keys() == shown("←", "caughtUp").keys()
        send = shown("→", "send")
        await socket.send(json.dumps(send))
        events: list[dict[str, Any]] = []
        while (message := await heard())["type"] != "ack":
            if "seq" in message:
                events.append(message)
        assert message == {**shown("←", "ack"), "seq": 2}
        assert [event["type"] for event in events] == ["message", "run.started"]
        chunk = await heard()
        while chunk["type"] != "run.chunk":
            chunk = await heard()
        cancel = {**shown("→", "cancel"), "seen": {"epoch": welcome["epoch"], "seq": chunk["seq"]}}
        await socket.send(json.dumps(cancel))
        ending: dict[str, Any] = {}
        while (message := await heard())["type"] != "ack":
            ending = message if message["type"] == "run.ended" else ending
        assert message == {**shown("←", "ack"), "id": cancel["id"], "outcome": "cancelled", "seq": ending["seq"]}
        assert ending["kept"] == [{"part": 0, "length": len(chunk["delta"])}]
