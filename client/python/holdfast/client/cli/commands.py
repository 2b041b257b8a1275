"""The commands that are clients of a session. Each is a coroutine that returns its exit code."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, get_args

import click
from click.shell_completion import get_completion_class

from holdfast.client.cli.chat import talk
from holdfast.client.cli.common import (
    ID,
    Exit,
    Interrupts,
    Target,
    connection_told,
    exit_of,
    line,
    person_command,
    say,
    session_command,
)
from holdfast.client.cli.show import (
    cancel_text,
    event_text,
    message_text,
    outcome_object,
    request_text,
    result_text,
    runs_table,
    steer_text,
    wire,
)
from holdfast.client.feed import Feed, Lagged
from holdfast.client.run import Run
from holdfast.client.session import Session
from holdfast.client.view import Reset
from holdfast.protocol import HoldfastError
from holdfast.protocol.commands import WhenBusy
from holdfast.protocol.control import OutcomeOfCancel, OutcomeOfSteer
from holdfast.protocol.events import Boundary, IfEnded

_EXIT_OF_CANCEL: Final[Mapping[OutcomeOfCancel, Exit]] = {
    "cancelled": Exit.DONE,
    "already_ended": Exit.DONE,
    "withdrawn": Exit.DONE,
    "steered": Exit.DONE,  # there is nothing more to stop by this id
    "unknown_run": Exit.REFUSED,
}
_EXIT_OF_STEER: Final[Mapping[OutcomeOfSteer, Exit]] = {
    "accepted": Exit.DONE,
    "sent": Exit.DONE,
    "already_ended": Exit.REFUSED,
    "unknown_run": Exit.REFUSED,
}


@click.command()
@person_command
async def chat(target: Target) -> Exit:
    """Talk to the session's agent.

    A line that is typed while a run goes on steers it. Ctrl-C stops the run; without a run, twice Ctrl-C or Ctrl-D
    leaves. `/help` tells the rest. Lines may also be piped in: each waits for the run of the one before it.
    """
    return await talk(target)


@click.command()
@click.argument("text")
@click.option("--detach", is_flag=True, help="Print the run's id and leave; the run goes on.")
@click.option("--run-id", type=ID, help="The run's id; the same id again is the same run.")
@click.option("--agent", type=ID, help="Which agent runs.")
@click.option(
    "--when-busy",
    type=click.Choice(get_args(WhenBusy)),
    default="queue",
    show_default=True,
    help="What happens while another run goes on.",
)
@session_command
async def send(
    target: Target, text: str, detach: bool, run_id: str | None, agent: str | None, when_busy: WhenBusy
) -> Exit:
    """Send TEXT (or - for standard input) and stream the run's text to standard output.

    The run's id goes to standard error. Ctrl-C stops the run, a second one leaves without waiting.
    """
    content = sys.stdin.read() if text == "-" else text
    chosen = run_id or f"r-{secrets.token_hex(8)}"
    async with target.open() as session, connection_told(session, say):
        events = session.run(chosen).events()
        with Interrupts() as interrupts:
            work = asyncio.ensure_future(_send(session, target, content, chosen, agent, when_busy, events, detach))
            stop = asyncio.ensure_future(_stop_on_interrupt(session, chosen, interrupts))
            leave = asyncio.ensure_future(interrupts.second())
            await asyncio.wait({work, leave}, return_when=asyncio.FIRST_COMPLETED)
            for task in (stop, leave):
                task.cancel()
            if work.done():
                return work.result()
            work.cancel()
            await asyncio.wait({work})
            return Exit.STOPPED


async def _send(
    session: Session,
    target: Target,
    content: str,
    run_id: str,
    agent: str | None,
    when_busy: WhenBusy,
    events: Feed,
    detach: bool,
) -> Exit:
    run = await session.send(content, run_id=run_id, agent=agent, when_busy=when_busy)
    if detach:
        if target.json:
            line({"runId": run.id})
        else:
            click.echo(run.id)
        return Exit.DONE
    if target.json:
        return await _events(run, events if run.id == run_id else run.events())
    say(f"run {run.id}")
    return await _stream(run, target)


async def _stop_on_interrupt(session: Session, run_id: str, interrupts: Interrupts) -> None:
    await interrupts.first()
    await session.cancel(run_id, seen=session.run(run_id).seen)


async def _stream(run: Run, target: Target) -> Exit:
    """Streams the run's text; what else there is to say goes to standard error."""
    asking = asyncio.ensure_future(_tell_requests(run, target.hint("chat")))
    last = "\n"
    try:
        async for text in run:
            click.echo(text, nl=False)
            last = text
    finally:
        asking.cancel()
        await asyncio.wait({asking})
    if not last.endswith("\n"):
        click.echo()
    result = await run.wait()
    if result.reason != "completed":
        say(result_text(result))
    return exit_of(result.reason)


async def _tell_requests(run: Run, chat_hint: str) -> None:
    told: set[str] = set()
    with suppress(HoldfastError):  # whoever reads the run is told
        async for _ in run.events():
            for request in run.requests:
                if request["id"] not in told:
                    told.add(request["id"])
                    say(f"\nThe run asks: {request_text(request)} Answer in `{chat_hint}`.")


async def _events(run: Run, events: Feed) -> Exit:
    """Prints the run's events as JSON, to its end."""
    async for item in events:
        line(wire(item))
    return exit_of((await run.wait()).reason)


@click.command()
@click.argument("run_id", metavar="[RUN]", type=ID, required=False)
@session_command
async def watch(target: Target, run_id: str | None) -> Exit:
    """Follow the session, or one RUN from its beginning to its end. Ctrl-C leaves; the run goes on."""
    async with target.open() as session, connection_told(session, say):
        if run_id is None:
            return await _watch_session(session, target)
        run = session.run(run_id)
        return await (_events(run, run.events()) if target.json else _stream(run, target))


async def _watch_session(session: Session, target: Target) -> Exit:
    """Shows whatever happens, for as long as the client lives."""
    async for item in session.events():
        if target.json:
            line(wire(item))
        elif isinstance(item, Reset):
            say(f"[back, with a gap that `{target.hint('history')}` fills]")
        elif isinstance(item, Lagged):
            say(f"[{item.missed} events were too fast for this terminal]")
        else:
            click.echo(event_text(item), nl=False)
    return Exit.DONE


@click.command()
@click.argument("run_id", metavar="RUN", type=ID)
@session_command
async def cancel(target: Target, run_id: str) -> Exit:
    """Stop RUN, wherever it was started."""
    async with target.open(messages=0) as session:
        outcome = await session.cancel(run_id)
    if target.json:
        line(outcome_object(outcome))
    else:
        click.echo(cancel_text(run_id, outcome))
    return _EXIT_OF_CANCEL.get(outcome.outcome, Exit.REFUSED)  # a newer server may say something else


@click.command()
@click.argument("run_id", metavar="RUN", type=ID)
@click.argument("text")
@click.option("--boundary", type=click.Choice(get_args(Boundary)), default="now", show_default=True)
@click.option("--if-ended", type=click.Choice(get_args(IfEnded)), default="return", show_default=True)
@session_command
async def steer(target: Target, run_id: str, text: str, boundary: Boundary, if_ended: IfEnded) -> Exit:
    """Say TEXT to RUN while it goes on."""
    async with target.open(messages=0) as session:
        outcome = await session.steer(text, run_id=run_id, boundary=boundary, if_ended=if_ended)
    if target.json:
        line(outcome_object(outcome))
    else:
        click.echo(steer_text(run_id, outcome))
    return _EXIT_OF_STEER.get(outcome.outcome, Exit.REFUSED)


@click.command()
@session_command
async def runs(target: Target) -> Exit:
    """List the runs that go on or wait, and the last ones that ended."""
    async with target.open() as session:
        transcript = session.transcript
        if target.json:
            for run in transcript.runs.values():
                line(run.snapshot())
        else:
            click.echo(runs_table(transcript))
    return Exit.DONE


@click.command()
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True, help="How many messages.")
@click.option("--before", type=click.IntRange(0), help="Only messages before this seq.")
@session_command
async def history(target: Target, limit: int, before: int | None) -> Exit:
    """Print the last messages of the session."""
    async with target.open(messages=0) as session:
        page = await session.history(before=before, limit=limit)
    for message in page.messages:
        if target.json:
            line(message)
        else:
            click.echo(message_text(message))
    if page.more and page.messages and not target.json:
        say(f"There is more: {target.hint('history', '--before', str(page.messages[0]['seq']))}")
    return Exit.DONE


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL: for bash, put `source <(holdfast completion bash)` into ~/.bashrc."""
    found = get_completion_class(shell)
    assert found is not None, "click knows the shells named above"
    click.echo(found(ctx.find_root().command, {}, "holdfast", "_HOLDFAST_COMPLETE").source())
