"""The command line against a server, each a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

from holdfast.client import connect
from tests.support.program import HOLDFAST, Serve, command, heard, holdfast, outcome, run_id_of, started
from tests.support.python_client import counted, until


async def test_a_server_says_where_it_is_and_what_to_try(tmp_path: Path) -> None:
    """`holdfast serve` alone starts the demo agent on SQLite, and names the next command."""
    with Serve(cwd=tmp_path) as server:
        said = "".join(server.out.said)
        assert f"Holdfast listens at ws://127.0.0.1:{server.port}, store sqlite:///holdfast.db, agents: demo" in said
        chat = next(line for line in said.splitlines() if line.startswith("In a terminal:")).partition(":")[2].split()
        assert chat[0] == "holdfast"
        async with started([HOLDFAST, *chat[1:]]) as process:
            ended = await outcome(process, "count to 2\n")
        assert (ended.code, ended.out) == (0, f"{counted(2)}\n")
        assert (tmp_path / "holdfast.db").exists()


async def test_a_server_without_a_page_names_none(tmp_path: Path) -> None:
    """With the page left out, nobody is sent to it."""
    with Serve(cwd=tmp_path, env={"HOLDFAST_PAGE": "false"}) as server:
        said = "".join(server.out.said)
    assert "In a terminal:" in said
    assert "In a browser:" not in said


async def test_a_chat_over_pipes_answers_line_by_line(demo: Serve, session: str) -> None:
    """Lines piped into `chat` are answered one after the other on standard output, and the end of the input leaves."""
    ended = await holdfast("chat", server=demo, session=session, given="count to 3\ncount to 4\n")
    assert (ended.code, ended.out) == (0, f"{counted(3)}\n{counted(4)}\n")


async def test_a_chat_asks_before_it_does(demo: Serve, session: str) -> None:
    """A question of the run is answered by the next line."""
    ended = await holdfast("chat", server=demo, session=session, given="delete my notes\ny\n")
    assert ended.code == 0
    assert "Allow delete " in ended.err
    assert "local said yes: done." in ended.out


async def test_ctrl_c_over_pipes_stops_the_run(demo: Serve, session: str) -> None:
    """Ctrl-C in a `chat` whose input is a pipe stops the run and leaves with 130."""
    async with started(command("chat", server=demo, session=session)) as process:
        assert process.stdin is not None
        process.stdin.write(b"count to 10000\n")
        await heard(process, " 5 ")
        process.send_signal(signal.SIGINT)
        ended = await outcome(process)
    assert ended.code == 130
    assert "is stopped." in ended.err
    listed = await holdfast("runs", server=demo, session=session)
    assert [line.split()[1] for line in listed.out.splitlines()[1:]] == ["cancelled"]


async def test_send_streams_the_message(demo: Serve, session: str) -> None:
    """`send` writes the message while the run goes on, and nothing else, to standard output."""
    async with started(command("send", "count to 40", server=demo, session=session)) as process:
        early = await heard(process, " 5 ")
        assert "40" not in early
        ended = await outcome(process)
    assert (ended.code, early + ended.out) == (0, f"{counted(40)}\n")


async def test_stop_from_another_terminal(demo: Serve, session: str) -> None:
    """`cancel RUN` from another process ends the sender with 130, and what it had printed is what is kept."""
    async with started(command("send", "count to 10000", server=demo, session=session)) as sender:
        run_id = await run_id_of(sender)
        early = await heard(sender, " 5 ")
        stopped = await holdfast("cancel", run_id, "--device", "phone", server=demo, session=session)
        assert (stopped.code, stopped.out) == (0, f"{run_id} is stopped.\n")
        ended = await outcome(sender)
    assert ended.code == 130
    assert ended.err == f"[{run_id} cancelled by local (phone)]\n"
    printed = (early + ended.out).rstrip("\n")
    past = await holdfast("history", "--json", server=demo, session=session)
    _, message = (json.loads(line) for line in past.out.splitlines())
    assert (message["status"], message["reason"]) == ("interrupted", "cancelled")
    assert message["parts"][0]["text"].rstrip() == printed.rstrip()


async def test_stop_by_ctrl_c_keeps_what_was_printed(demo: Serve, session: str) -> None:
    """Ctrl-C in `send` stops the run; nothing is kept that the sender had not printed."""
    async with started(command("send", "count to 10000", server=demo, session=session)) as sender:
        await run_id_of(sender)
        early = await heard(sender, " 5 ")
        sender.send_signal(signal.SIGINT)
        ended = await outcome(sender)
    assert ended.code == 130
    past = await holdfast("history", "--json", server=demo, session=session)
    kept = json.loads(past.out.splitlines()[1])["parts"][0]["text"]
    assert kept.startswith(early.rstrip())
    assert (early + ended.out).startswith(kept)


async def test_a_detached_run_is_watched_steered_and_listed(demo: Serve, session: str) -> None:
    """`send --detach` prints the id and leaves; `watch`, `steer`, `runs` and `history` find the run by it."""
    sent = await holdfast("send", "count to 10000", "--detach", "--run-id", "long", server=demo, session=session)
    assert (sent.code, sent.out, sent.err) == (0, "long\n", "")
    async with started(command("watch", "long", server=demo, session=session)) as watcher:
        await heard(watcher, " 5 ")
        steered = await holdfast("steer", "long", "count to 3", server=demo, session=session)
        assert (steered.code, steered.out.split(" (")[0]) == (0, "long will take it")
        watched = await outcome(watcher)
    assert watched.code == 0
    assert watched.out.endswith(f"You told me: “count to 3”. So: {counted(3)}\n")
    listed = await holdfast("runs", server=demo, session=session)
    assert listed.out.splitlines()[1].split()[:4] == ["long", "completed", "demo", "local"]
    past = await holdfast("history", server=demo, session=session)
    assert past.out.startswith("local: count to 10000\nassistant: Counting: 1 2")
    assert "[local: count to 3]" in past.out


async def test_watching_a_session_shows_what_others_do(demo: Serve, session: str) -> None:
    """`watch` without a run shows messages, answers and ends of whatever happens, and Ctrl-C leaves it with 130."""
    watch = command("watch", "--json", "--device", "window", server=demo, session=session)
    async with started(watch) as watcher, connect(demo.url, session=session) as other:
        await until(other, lambda: "window" in [device["device"] for device in other.presence["devices"]])
        await other.send("count to 2")
        said = await heard(watcher, '"run.ended"')
        watcher.send_signal(signal.SIGINT)
        assert (await outcome(watcher)).code == 130
    types = [json.loads(line)["type"] for line in said.splitlines()]
    assert types[:2] == ["message", "run.started"]
    assert types[-1] == "run.ended"


async def test_json_is_for_scripts(demo: Serve, session: str) -> None:
    """With `--json` every command prints one JSON object per line and nothing else."""
    sent = await holdfast("send", "count to 3", "--json", "--run-id", "r1", server=demo, session=session)
    events = [json.loads(line) for line in sent.out.splitlines()]
    assert (sent.code, sent.err) == (0, "")
    assert [event["type"] for event in events if event["type"] != "run.chunk"] == [
        "message",
        "run.started",
        "run.ended",
    ]
    assert "".join(event.get("delta", "") for event in events) == counted(3)
    detached = await holdfast(
        "send", "count to 9999", "--detach", "--json", "--run-id", "r2", server=demo, session=session
    )
    assert json.loads(detached.out) == {"runId": "r2"}
    steered = await holdfast("steer", "r2", "count to 9998", "--json", server=demo, session=session)
    assert json.loads(steered.out)["outcome"] == "accepted"
    stopped = await holdfast("cancel", "r2", "--json", server=demo, session=session)
    assert json.loads(stopped.out)["outcome"] == "cancelled"
    again = await holdfast("cancel", "r2", "--json", server=demo, session=session)
    ended = json.loads(again.out)
    assert (again.code, ended["outcome"], ended["reason"]) == (0, "already_ended", "cancelled")
    listed = await holdfast("runs", "--json", server=demo, session=session)
    assert [json.loads(line)["reason"] for line in listed.out.splitlines()] == ["completed", "cancelled"]
    past = await holdfast("history", "--json", "--limit", "2", server=demo, session=session)
    assert [json.loads(line)["role"] for line in past.out.splitlines()] == ["user", "assistant"]


async def test_the_same_id_is_the_same_run(demo: Serve, session: str) -> None:
    """A `send` repeated with its run id prints the same message again; with another text it is refused with 4."""
    first = await holdfast("send", "count to 5", "--run-id", "once", server=demo, session=session)
    again = await holdfast("send", "count to 5", "--run-id", "once", server=demo, session=session)
    assert (first.code, first.out) == (again.code, again.out) == (0, f"{counted(5)}\n")
    other = await holdfast("send", "count to 6", "--run-id", "once", server=demo, session=session)
    assert (other.code, other.out) == (4, "")
    assert "(conflict)" in other.err
    listed = await holdfast("runs", server=demo, session=session)
    assert len(listed.out.splitlines()) == 2


async def test_what_a_busy_session_does(demo: Serve, session: str) -> None:
    """`--when-busy` decides: `reject` leaves with 4, `alongside` answers at once, `interrupt` ends the run."""
    await holdfast("send", "count to 10000", "--detach", "--run-id", "long", server=demo, session=session)
    rejected = await holdfast("send", "x", "--when-busy", "reject", server=demo, session=session)
    assert rejected.code == 4
    assert "(busy)" in rejected.err
    beside = await holdfast("send", "count to 2", "--when-busy", "alongside", server=demo, session=session)
    assert (beside.code, beside.out) == (0, f"{counted(2)}\n")
    queued = await holdfast("send", "count to 4", "--detach", "--run-id", "later", server=demo, session=session)
    assert queued.out == "later\n"
    now = await holdfast("send", "count to 3", "--when-busy", "interrupt", server=demo, session=session)
    assert (now.code, now.out) == (0, f"{counted(3)}\n")
    later = await holdfast("watch", "later", server=demo, session=session)
    assert (later.code, later.out) == (0, f"{counted(4)}\n")
    listed = await holdfast("runs", "--json", server=demo, session=session)
    infos = {info["runId"]: info for info in map(json.loads, listed.out.splitlines())}
    assert (infos["long"]["reason"], infos["long"]["cause"]) == ("cancelled", "superseded")


async def test_exit_codes_tell_what_went_wrong(demo: Serve, session: str) -> None:
    """2 is wrong usage, 3 no server, 4 refused by the server; each with a sentence and no traceback."""
    await holdfast("send", "count to 1", "--run-id", "over", server=demo, session=session)
    nobody, usage, no_url, unknown, late, agent, lost = await asyncio.gather(
        holdfast("history", "--url", "ws://127.0.0.1:1"),
        holdfast("send", server=demo, session=session),
        holdfast("runs", "--url", "nowhere"),
        holdfast("cancel", "nothing", server=demo, session=session),
        holdfast("steer", "over", "more", server=demo, session=session),
        holdfast("send", "x", "--agent", "nobody", server=demo, session=session),
        holdfast("watch", "nothing", server=demo, session=session),
    )
    assert [nobody.code, usage.code, no_url.code] == [3, 2, 2]
    assert [unknown.code, late.code, agent.code, lost.code] == [4, 4, 4, 4]
    assert "`holdfast serve` starts one" in nobody.err
    assert unknown.out == "The session knows no run nothing.\n"
    assert "had ended already" in late.out
    assert "(unknown_agent)" in agent.err
    assert not any("Traceback" in ended.err for ended in (nobody, usage, no_url, unknown, late, agent, lost))


async def test_completion_names_the_commands(tmp_path: Path) -> None:
    """The completion script of a shell asks the program, which names its commands."""
    script = await holdfast("completion", "bash")
    assert "_HOLDFAST_COMPLETE=bash_complete" in script.out
    asked = {"_HOLDFAST_COMPLETE": "bash_complete", "COMP_WORDS": "holdfast c", "COMP_CWORD": "1"}
    completed = await holdfast(env=asked, cwd=tmp_path)
    assert [line.partition(",")[2] for line in completed.out.splitlines()] == ["cancel", "chat", "completion", "config"]
