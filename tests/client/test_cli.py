"""The command line, as a process against the scripted server."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast, get_args

import click
import pytest
from click.testing import CliRunner

from holdfast.client import CancelOutcome, SteerOutcome
from holdfast.client.cli import main
from holdfast.client.cli.chat import Chat
from holdfast.client.cli.common import DEFAULT_SESSION, DEFAULT_URL, Exit, Target, exit_of, person_command, refusal_text
from holdfast.client.cli.show import cancel_text, ended_text, request_text, steer_text
from holdfast.protocol import CommandError
from holdfast.protocol.control import OutcomeOfCancel, OutcomeOfSteer
from holdfast.protocol.events import EndReason, RequestKind
from tests.client.fake_server import FakeServer
from tests.support.vectors import ENDS


@asynccontextmanager
async def holdfast(server: FakeServer, *arguments: str) -> AsyncGenerator[Any]:
    """The program as a process; killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from holdfast.client.cli import main; main(prog_name='holdfast')",
        *arguments,
        *("--url", server.url, "--session", "trip"),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def output(process: Process, given: bytes | None = None) -> tuple[int | None, str, str]:
    """Exit code, output, errors of a process that ends by itself."""
    async with asyncio.timeout(20):
        out, err = await process.communicate(given)
    return process.returncode, out.decode(), err.decode()


async def accept(server: FakeServer) -> str:
    """Starts the run that the next command asks for; its id."""
    command = await server.command("send")
    await server.start_run(command["id"], command["text"])
    await server.ack(command, "started", runId=command["id"], seq=len(server.log))
    return str(command["id"])


@pytest.mark.parametrize(("reason", "code"), [("completed", 0), ("failed", 1), ("cancelled", 130)])
async def test_send_streams_the_text(server: FakeServer, reason: str, code: int) -> None:
    """`send` prints the run's text to standard output, the run's id beside it, and exits by how the run ended."""
    async with holdfast(server, "send", "hello") as process:
        run_id = await accept(server)
        await server.text(run_id, "Good ")
        await server.text(run_id, "morning")
        await server.end_run(run_id, reason)
        status, out, err = await output(process)
        assert (status, out) == (code, "Good morning\n")
        assert err.startswith(f"run {run_id}\n")


@pytest.mark.parametrize(
    ("ending", "told"),
    [
        ({"cause": "user", "by": "ana", "device": "phone"}, "cancelled by ana (phone)"),
        ({"cause": "shutdown", "by": "server", "device": "n1"}, "cancelled: the server shut down"),
    ],
)
async def test_who_stopped_it(server: FakeServer, ending: dict[str, str], told: str) -> None:
    """`send` tells who stopped its run from where, or what else did."""
    async with holdfast(server, "send", "hello") as process:
        run_id = await accept(server)
        await server.end_run(run_id, "cancelled", **ending)
        assert (await output(process))[2] == f"run {run_id}\n[{run_id} {told}]\n"


async def test_joining_a_chat_shows_an_open_question_once(server: FakeServer) -> None:
    """What another device asked is shown with its run, and not a second time among what was said before."""
    await server.start_run("r-0", "said before")
    await server.end_run("r-0")
    await server.start_run("r-1", "still open")
    await server.text("r-1", "Good\n")
    async with holdfast(server, "chat") as process:
        process.stdin.close()
        assert await process.stdout.readline() == b"Good\n"
        await server.end_run("r-1", "cancelled", cause="user", by="ana", device="phone")
        err = (await output(process))[2]
        assert (err.count("said before"), err.count("still open")) == (1, 1)
        assert err.endswith("[r-1 cancelled by ana (phone)]\n")


class Typed:
    """A screen on which a test types, and reads the notes."""

    def __init__(self) -> None:
        self.question: str | None = None
        self.typed = asyncio.Queue[str | None]()
        self.noted = asyncio.Queue[str]()

    def write(self, text: str) -> None:
        """The text is of no interest here."""

    def end(self) -> None:
        """Nor is where its lines end."""

    def note(self, text: str) -> None:
        """Keeps it to be read."""
        self.noted.put_nowait(text)

    async def lines(self, interrupted: Callable[[], bool]) -> AsyncGenerator[str]:
        """What the test types, until it types None."""
        while (text := await self.typed.get()) is not None:
            yield text

    async def told(self, words: str) -> None:
        """Returns when a note has these words."""
        async with asyncio.timeout(5):
            while words not in await self.noted.get():
                pass


async def test_a_chat_does_not_answer_what_it_does_not_know(server: FakeServer) -> None:
    """A request of a kind of a newer server is told, and the next line is no answer to it but steers the run; what that
    comes to is told by the newer server's word, and is not sent again.
    """
    await server.start_run("r-1")
    await server.append("run.requested", runId="r-1", request={"id": "q", "kind": "signature"})
    screen = Typed()
    target = Target(server.url, "trip", None, None, json=False)
    async with target.open() as session:
        chatting = asyncio.ensure_future(Chat(session, screen, target, patient=False).run())
        await screen.told("(signature)")
        screen.typed.put_nowait("yes")
        command = await server.command("steer")
        await server.ack(command, "put_off")
        await screen.told("[r-1: put off.]")
        await server.append("run.requested", runId="r-1", request={"id": "q2", "kind": "approval", "name": "delete"})
        await screen.told("Allow delete")
        screen.typed.put_nowait("yes")
        command = await server.command("answer")
        assert (command["requestId"], command["value"]) == ("q2", True)
        await server.ack(command, "accepted")
        screen.typed.put_nowait(None)
        assert await chatting == 0
        assert server.silent()


async def test_send_detached(server: FakeServer) -> None:
    """`send --detach` prints the run's id and leaves the run alone; `-` reads the text from standard input."""
    async with holdfast(server, "send", "-", "--detach") as process:
        process.stdin.write(b"from a pipe")
        process.stdin.close()
        run_id = await accept(server)
        assert await output(process) == (0, f"{run_id}\n", "")
    assert server.log[0]["message"]["parts"] == [{"kind": "text", "text": "from a pipe"}]
    assert server.silent()


async def test_interrupt_stops_the_run(server: FakeServer) -> None:
    """Ctrl-C during `send` cancels the run and shows what is kept."""
    async with holdfast(server, "send", "hello") as process:
        run_id = await accept(server)
        await server.text(run_id, "Good\n")
        assert await process.stdout.readline() == b"Good\n"
        process.send_signal(signal.SIGINT)
        command = await server.command("cancel")
        assert (command["runId"], command["seen"]) == (run_id, {"epoch": "E1", "seq": 3})
        ended = await server.end_run(run_id, "cancelled")
        await server.ack(command, "cancelled", runId=run_id, seq=ended["seq"])
        status, _, err = await output(process)
        assert status == 130
        assert "cancelled" in err


async def test_second_interrupt_leaves(server: FakeServer) -> None:
    """A second Ctrl-C leaves without waiting for the server."""
    async with holdfast(server, "send", "hello") as process:
        run_id = await accept(server)
        await server.text(run_id, "Good\n")
        await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        await server.command("cancel")
        process.send_signal(signal.SIGINT)
        assert (await output(process))[0] == 130


async def test_json_events(server: FakeServer) -> None:
    """`send --json` prints each event of the run, from its first to its last, as a line of JSON."""
    async with holdfast(server, "send", "hello", "--json") as process:
        run_id = await accept(server)
        await server.text(run_id, "Good")
        await server.end_run(run_id)
        status, out, _ = await output(process)
        assert status == 0
        assert [json.loads(line) for line in out.splitlines()] == server.log


@pytest.mark.parametrize(
    ("reply", "code", "told"),
    [
        ({"outcome": "cancelled", "seq": 0}, 0, "r-1 is stopped.\n"),
        ({"outcome": "already_ended", "reason": "completed"}, 0, "r-1 had ended already (completed).\n"),
        ({"outcome": "unknown_run"}, 4, "The session knows no run r-1.\n"),
        ({"outcome": "put_off"}, 4, "r-1: put off.\n"),
    ],
)
async def test_cancel(server: FakeServer, reply: dict[str, Any], code: int, told: str) -> None:
    """`cancel RUN` tells the outcome; a run that nobody knows, or an outcome of a newer server, is no success."""
    async with holdfast(server, "cancel", "r-1") as process:
        command = await server.command("cancel")
        await server.ack(command, **reply)
        assert await output(process) == (code, told, "")


async def test_interrupted_cancel_is_sent(server: FakeServer) -> None:
    """`cancel RUN` that is left by Ctrl-C has sent its command before the goodbye, and waits for its reply."""
    async with holdfast(server, "cancel", "r-1") as process:
        command = await server.command("cancel")
        process.send_signal(signal.SIGINT)
        await server.ack(command, "cancelled", runId="r-1")
        assert (await output(process))[0] in (0, 130)
        assert server.heard == ["cancel", "goodbye"]


@pytest.mark.parametrize("command", [("send", "hello"), ("send", "hello", "--json"), ("chat",)], ids="-".join)
async def test_unknown_reason(server: FakeServer, command: tuple[str, ...]) -> None:
    """A run that ends for a reason of a newer server has failed for this program, and is told by that name."""
    async with holdfast(server, *command) as process:
        if command == ("chat",):
            process.stdin.write(b"hello\n")
            process.stdin.write_eof()
        await server.end_run(await accept(server), "budget")
        status, out, told = await output(process)
        assert status == 1
        assert "budget" in (out if "--json" in command else told)


def test_words_of_a_newer_server() -> None:
    """Outcomes and requests that this version does not know are told by their names."""
    assert cancel_text("r-1", CancelOutcome(cast("Any", "put_off"))) == "r-1: put off."
    assert steer_text("r-1", SteerOutcome(cast("Any", "put_off"), "s-1")) == "r-1: put off."
    ending = {"cause": "over_quota", "by": "ana"}
    assert ended_text("r-1", "budget", ending) == "[r-1 budget: over quota]"
    request = {"id": "q", "kind": "signature"}
    assert request_text(cast("Any", request)) == "something that this version does not know (signature)."


@pytest.mark.parametrize("outcome", get_args(OutcomeOfCancel))
def test_every_outcome_of_a_cancel_has_a_sentence(outcome: OutcomeOfCancel) -> None:
    """None that this version knows is told by its bare name."""
    assert cancel_text("r-1", CancelOutcome(outcome)) != f"r-1: {outcome.replace('_', ' ')}."


@pytest.mark.parametrize("outcome", get_args(OutcomeOfSteer))
def test_every_outcome_of_a_steer_has_a_sentence(outcome: OutcomeOfSteer) -> None:
    """None that this version knows is told by its bare name."""
    assert steer_text("r-1", SteerOutcome(outcome, "s-1")) != f"r-1: {outcome.replace('_', ' ')}."


@pytest.mark.parametrize("kind", get_args(RequestKind))
def test_every_kind_of_request_has_a_question(kind: RequestKind) -> None:
    """None that this version knows is told as one that it does not."""
    assert "does not know" not in request_text({"id": "q", "kind": kind})


@pytest.mark.parametrize("reason", ENDS)
def test_every_end_has_its_exit_code(reason: EndReason) -> None:
    """A command that followed a run exits as the shared table says, and the program names that code."""
    assert exit_of(reason) == ENDS[reason]["exitCode"]
    assert f"\n  {ENDS[reason]['exitCode']} " in (main.epilog or "")


async def test_steer_and_refusal(server: FakeServer) -> None:
    """`steer` tells its outcome; what the server refuses exits with 4 and a sentence."""
    async with holdfast(server, "steer", "r-1", "shorter", "--json") as process:
        command = await server.command("steer")
        await server.ack(command, "accepted", runId="r-1", seq=0)
        status, out, _ = await output(process)
        assert (status, json.loads(out)["outcome"]) == (0, "accepted")
    async with holdfast(server, "steer", "r-1", "shorter") as process:
        command = await server.command("steer")
        error = {"type": "error", "id": command["id"], "code": "forbidden", "message": "not yours"}
        await server.say({**error, "retryable": False})
        assert await output(process) == (4, "", "Error: not yours (forbidden)\n")


async def test_watch_runs_history(server: FakeServer) -> None:
    """`watch RUN`, `runs` and `history` show what was, also of another device."""
    await server.start_run("r-1", "hello")
    await server.text("r-1", "Good morning")
    await server.end_run("r-1")
    async with holdfast(server, "watch", "r-1") as process:
        assert await output(process) == (0, "Good morning\n", "")
    async with holdfast(server, "runs") as process:
        status, out, _ = await output(process)
        assert (status, out.splitlines()[1].split()) == (0, ["r-1", "completed", "demo", "ana", "tab"])
    async with holdfast(server, "history") as process:
        command = await server.command("history")
        messages = server.snapshot()["messages"]
        await server.say({"type": "page", "id": command["id"], "messages": messages, "more": False, "last": True})
        assert await output(process) == (0, "ana: hello\nassistant: Good morning\n", "")


def test_ctrl_c_wakes_a_command_that_waits() -> None:
    """While a command runs a signal wakes the loop, also one that comes just before it begins to sleep."""
    woken: list[bool] = []

    async def look(_: Target) -> Exit:
        descriptor = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(descriptor)
        woken.append(descriptor != -1)
        return Exit.DONE

    CliRunner().invoke(click.command()(person_command(look)), [])
    assert woken == [True]


async def test_watch_session(server: FakeServer) -> None:
    """`watch` without a run follows the session until Ctrl-C, which exits with 130."""
    async with holdfast(server, "watch") as process:
        async with asyncio.timeout(20):
            await server.connected.wait()
        await server.say({"type": "ping", "head": 0})
        await server.command("pong")  # it has caught up, and follows
        await server.start_run("r-1", "hello")
        await server.text("r-1", "Good\n")
        lines = [await process.stdout.readline() for _ in range(4)]
        assert lines == [b"\n", b"ana: hello\n", b"[r-1 started, demo]\n", b"Good\n"]
        process.send_signal(signal.SIGINT)
        assert await output(process) == (130, "", "Left; runs go on, and no command is taken back.\n")


async def test_chat_over_pipes(server: FakeServer) -> None:
    """Piped lines are sent one after the other, each when the run before it has ended; a question takes a line."""
    async with holdfast(server, "chat") as process:
        process.stdin.write(b"first\ny\nsecond\n")
        process.stdin.close()
        first = await accept(server)
        await server.text(first, "one")
        request = {"id": "q-1", "kind": "approval", "callId": "c", "name": "rm", "input": {"path": "/"}}
        await server.append("run.requested", runId=first, request=request)
        answer = await server.command("answer")
        assert (answer["requestId"], answer["value"]) == ("q-1", True)
        await server.append("run.resolved", runId=first, requestId="q-1", outcome="answered")
        await server.ack(answer, "accepted", runId=first, seq=len(server.log))
        assert server.silent()
        await server.end_run(first)
        second = await accept(server)
        await server.text(second, "two")
        await server.end_run(second, "failed", error={"code": "agent", "message": "it broke"})
        status, out, err = await output(process)
        assert (status, out) == (1, "one\ntwo\n")
        assert f"holdfast cancel {first} --url {server.url} --session trip]" in err
        assert "it broke" in err
        assert "" not in err.splitlines()


async def test_nobody_there(server: FakeServer) -> None:
    """Without a server a command exits with 3 and says how to start one."""
    server.refuse = (4500, "token rejected")
    async with holdfast(server, "runs") as process:
        status, _, err = await output(process)
        assert status == 3
        assert "token rejected" in err


def test_usage() -> None:
    """Wrong usage exits with 2, before anything is opened; the version is the distribution's."""
    runner = CliRunner()
    for arguments in (["nonsense"], ["cancel"], ["runs", "--url", "nonsense"], ["runs", "--session", "no id!"]):
        assert runner.invoke(main, arguments).exit_code == 2, arguments
    refused = runner.invoke(main, ["cancel", "no id!"])
    assert (refused.exit_code, "'no id!' is no id: 1-128 of" in refused.output) == (2, True)
    assert "No such option" in runner.invoke(main, ["chat", "--json"]).output
    assert runner.invoke(main, ["--version"]).output.startswith("holdfast, version ")


def test_hints_can_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hint names the program as it was called, and the server and session where they are not the usual ones."""
    usual = Target(DEFAULT_URL, DEFAULT_SESSION, None, None, json=False)
    assert usual.hint("cancel", "r-1") == "holdfast cancel r-1"
    monkeypatch.setenv("HOLDFAST_PROGRAM", "./dev")
    other = Target("ws://there:1", "trip", None, None, json=False)
    assert other.hint("chat") == "./dev chat --url ws://there:1 --session trip"


def test_refusals_name_their_place() -> None:
    """A refusal is told with the field at fault, its sentence and its code."""
    error = CommandError("unknown_agent", "there is no agent 'x'; there are: demo", path="$.agent")
    assert refusal_text(error) == "agent: there is no agent 'x'; there are: demo (unknown_agent)"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    """The completion script of each shell calls the program back."""
    result = CliRunner().invoke(main, ["completion", shell], prog_name="holdfast")
    assert result.exit_code == 0
    assert "_HOLDFAST_COMPLETE" in result.output


def test_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subcommand whose packages are missing says what to install and exits with 2; the others still work."""

    def load(self: Any) -> Any:
        raise ModuleNotFoundError("No module named 'uvloop'", name="uvloop")

    monkeypatch.setattr("importlib.metadata.EntryPoint.load", load)
    result = CliRunner().invoke(main, ["serve", "--port", "1"])
    assert result.exit_code == 2
    assert "needs uvloop: run `pip install 'holdfast[server]'`" in result.output
    assert CliRunner().invoke(main, ["--help"]).exit_code == 0
