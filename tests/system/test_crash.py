"""What dies without a word: clients, whose runs go on, and servers, whose successors tell what became of their runs."""

from __future__ import annotations

import json
from pathlib import Path

from holdfast.client import connect
from tests.support.plain_client import greeted
from tests.support.program import Serve, command, heard, holdfast, run_id_of, started
from tests.support.python_client import counted, ended, read, until


async def test_a_killed_client_leaves_its_run_alone(demo: Serve, session: str) -> None:
    """`kill -9` of the sender changes nothing: another client reads the message from its beginning to its end."""
    async with started(command("send", "count to 100", server=demo, session=session)) as sender:
        run_id = await run_id_of(sender)
        await heard(sender, " 5 ")
        sender.kill()
        await sender.wait()
    async with connect(demo.url, session=session) as other:
        run = other.run(run_id)
        assert run.status == "running"
        assert await read(aiter(run)) == counted(100)
        assert (await ended(run)).reason == "completed"


async def test_a_killed_server_loses_nothing_that_was_said(tmp_path: Path) -> None:
    """`kill -9` of the server, and another on its file: the run is `lost` with all its text, the queued one starts, the
    history is there, an old send is known, and a client that stayed is back by itself.
    """
    with Serve("--demo-words-per-second", "100", cwd=tmp_path) as first:
        async with connect(first.url, session="trip") as client:
            assert (await ended(await client.send("count to 3", run_id="ancient"))).text == counted(3)
            run = await client.send("count to 10000", run_id="doomed")
            queued = await client.send("count to 4", run_id="next")
            texts = aiter(run)
            said = await read(texts, up_to=" 30 ")
            first.kill()
            with Serve("--demo-words-per-second", "100", cwd=tmp_path, port=first.port) as second:
                said += await read(texts)
                lost = await ended(run)
                assert (lost.reason, lost.text) == ("lost", said)
                assert (await ended(queued)).text == counted(4)
                past = await holdfast("history", "--json", server=second, session="trip")
                messages = [json.loads(line) for line in past.out.splitlines()]
                assert [message["status"] for message in messages] == ["complete"] * 2 + [
                    "complete",
                    "interrupted",
                    "complete",
                    "complete",
                ]
                assert messages[3]["parts"] == [{"kind": "text", "text": said}]
                async with greeted(second.url, "trip") as wire:
                    again = await wire.command("send", "ancient", text="count to 3")
                    assert (again["outcome"], again["duplicate"]) == ("started", True)
                    other = await wire.command("send", "ancient", text="count to 4")
                    assert other["code"] == "conflict"
                    stopped = await wire.command("cancel", "k1", runId="doomed")
                    assert (stopped["outcome"], stopped["reason"]) == ("already_ended", "lost")
                await until(client, lambda: len(client.messages) == 6)


async def test_a_session_that_is_never_opened_again_is_finished_too(tmp_path: Path) -> None:
    """A run that was going on when the server died is ended by the next start, not by the next visitor."""
    with Serve("--demo-words-per-second", "100", cwd=tmp_path) as first:
        async with connect(first.url, session="unvisited") as client:
            run = await client.send("count to 10000", run_id="doomed")
            await read(aiter(run), up_to=" 3 ")
        first.kill()
    with Serve(cwd=tmp_path) as second:
        async with greeted(second.url, "unvisited", messages=10) as wire:
            snapshot = next(message for message in wire.received if message["type"] == "snapshot")
            assert [run["reason"] for run in snapshot["runs"]] == ["lost"]
