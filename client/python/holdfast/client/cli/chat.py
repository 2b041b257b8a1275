"""`holdfast chat`: a conversation that runs, other devices and a lost line may all interrupt."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from pydantic import JsonValue

from holdfast.client.cli.common import Exit, Interrupts, Target, connection_told, exit_of, refusal_text
from holdfast.client.cli.screen import Pipes, Screen, Terminal
from holdfast.client.cli.show import cancel_text, message_text, plain, request_text, result_text, runs_table, steer_text
from holdfast.client.phases import Status
from holdfast.client.run import Run
from holdfast.client.session import Session
from holdfast.protocol import HoldfastError
from holdfast.protocol.events import Request, RequestKind

HELP: Final = """A line is a message, or steers the run that goes on. Ctrl-C stops the run.
/queue TEXT      a message for after the run       /runs      the runs of this session
/interrupt TEXT  stop the run, start another      /history   what was said
/quit            leave; runs go on                 /help      this"""
_STILL: Final = frozenset({"queued", "ended", "unknown"})
"""Runs that nothing can be said to yet, or any more. A status of a newer server is one of a run that goes on."""
_CHOICES: Final[Mapping[RequestKind, str | None]] = {"approval": " [y/n]", "input": "", "tool": None}
"""What the person may answer; None where a device does."""
_YES: Final = frozenset({"y", "yes"})


async def talk(target: Target) -> Exit:
    """Chats until the input ends; over pipes the exit code is that of the last run."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        async with target.open() as session:
            return await Chat(session, Terminal(), target, patient=False).run()
    async with target.open() as session:
        chat = Chat(session, Pipes(), target, patient=True)
        with Interrupts() as interrupts:
            work = asyncio.ensure_future(chat.run())
            first = asyncio.ensure_future(interrupts.first())
            await asyncio.wait({work, first}, return_when=asyncio.FIRST_COMPLETED)
            first.cancel()
            if not work.done():
                await chat.stop()
                work.cancel()
                await asyncio.wait({work})
                return Exit.STOPPED
            return work.result()


class Chat:
    """One conversation. `patient`: each line waits for the end of the run before it, as from a pipe."""

    def __init__(self, session: Session, screen: Screen, target: Target, *, patient: bool) -> None:
        self._session = session
        self._screen = screen
        self._target = target
        self._patient = patient
        self._followed = {run_id for run_id, run in session.runs.items() if run.status == "ended"}
        self._current: Run | None = None
        self._asked: tuple[Run, Request] | None = None
        self._last = Exit.DONE
        self._hinted = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()
        """Something changed here, and not in the session."""

    async def run(self) -> Exit:
        """Until the input ends."""
        self._screen.note(f"Session {self._session.id}. /help tells what you can type; Ctrl-D leaves.")
        for message in self._session.messages[-6:]:
            if self._session.run(message.get("runId", "")).status in ("ended", "unknown"):  # others are shown whole
                self._screen.note(message_text(message))
        async with connection_told(self._session, self._screen.note):
            return await self._converse()

    async def _converse(self) -> Exit:
        following = asyncio.ensure_future(self._follow())
        typing = asyncio.ensure_future(self._type())
        await asyncio.wait({following, typing}, return_when=asyncio.FIRST_COMPLETED)
        for task in (following, typing, *self._tasks):
            if not task.done():
                task.cancel()
        await asyncio.wait({following, typing, *self._tasks})
        for task in (typing, following):
            if not task.cancelled():
                task.result()
        return self._last if self._patient else Exit.DONE

    async def stop(self) -> None:
        """Stops the run that goes on, and says what came of it."""
        run = self._open_run()
        if run is not None:
            self._screen.note(cancel_text(run.id, await run.cancel()))

    # ---- what comes in

    async def _type(self) -> None:
        await self._settle()
        async for text in self._screen.lines(self._interrupted):
            if text.strip() == "/quit":
                return
            if text.strip():
                self._start(text.strip())
            await self._settle()

    def _start(self, text: str) -> None:
        """Deals with a line in a task of its own: an acknowledgement may take as long as the line is down."""
        self._hinted = False
        if self._session.status is Status.OFFLINE:
            self._screen.note("[no connection; this is sent when there is one]")
        task = asyncio.ensure_future(self._line(text))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._moved.set()

    async def _settle(self) -> None:
        """Over pipes: until the next line has its turn, which is the end of the run, or its question."""
        while self._patient and (self._tasks or (self._asked is None and self._busy())):
            self._moved.clear()
            changed = asyncio.ensure_future(self._session.changed())
            moved = asyncio.ensure_future(self._moved.wait())
            await asyncio.wait({changed, moved}, return_when=asyncio.FIRST_COMPLETED)
            moved.cancel()
            if not changed.cancel():
                changed.result()

    def _busy(self) -> bool:
        unshown = any(run_id not in self._followed for run_id in self._session.runs)
        return self._current is not None or unshown

    async def _line(self, text: str) -> None:
        try:
            await self._deal(text)
        except HoldfastError as error:
            self._last = Exit.REFUSED
            self._screen.note(f"[not done: {refusal_text(error)}]")

    async def _deal(self, text: str) -> None:
        if self._asked is not None and not text.startswith("/"):
            run, request = self._asked
            self._ask(None)
            await self._answer(run, request, text)
            return
        word, _, rest = text.partition(" ")
        match word:
            case "/help":
                self._screen.note(HELP)
            case "/runs":
                self._screen.note(runs_table(self._session.transcript))
            case "/history":
                page = await self._session.history()
                for message in page.messages:
                    self._screen.note(message_text(message))
            case "/queue" if rest:
                await self._send(rest)
            case "/interrupt" if rest:
                stopped = self._open_run()
                seen = None if stopped is None else stopped.seen
                await self._session.send(rest, when_busy="interrupt", seen=seen)
            case _ if word.startswith("/"):
                self._screen.note(f"[{word} is not known or lacks its text; /help tells what is]")
            case _:
                await self._say(text)

    async def _say(self, text: str) -> None:
        run = self._open_run()
        if run is None:
            await self._send(text)
            return
        outcome = await run.steer(text, if_ended="send")
        came: str = outcome.outcome  # that of a newer server may be another one
        match came:
            case "accepted":
                self._screen.note(f"[steers {run.id}]")
            case "sent":
                pass
            case "already_ended" | "unknown_run":
                await self._send(text)
            case _:
                self._screen.note(f"[{steer_text(run.id, outcome)}]")

    async def _send(self, text: str) -> None:
        run = await self._session.send(text)
        if run.status == "queued":
            self._screen.note(f"[{run.id} waits for its turn]")

    async def _answer(self, run: Run, request: Request, text: str) -> None:
        value: JsonValue = text.lower() in _YES if request["kind"] == "approval" else text
        outcome = await run.answer(request["id"], value)
        if outcome.outcome != "accepted":
            self._screen.note(f"[{outcome.outcome.replace('_', ' ')}]")

    def _interrupted(self) -> bool:
        """Ctrl-C: stops the run; without one the second press in a row leaves."""
        if self._open_run() is not None:
            task = asyncio.ensure_future(self._stop_told())
            self._tasks.add(task)
            task.add_done_callback(self._done)
            return False
        if self._hinted:
            return True
        self._hinted = True
        self._screen.note("[no run to stop; Ctrl-C again or Ctrl-D leaves]")
        return False

    async def _stop_told(self) -> None:
        with suppress(HoldfastError):
            await self.stop()

    # ---- what goes out

    async def _follow(self) -> None:
        """Shows each run when it starts, whoever started it, one after the other."""
        while True:
            waiting = [run for run_id, run in self._session.runs.items() if run_id not in self._followed]
            run = next((run for run in waiting if run.status != "queued"), None)
            if run is None:
                await self._session.changed()
                continue
            self._followed.add(run.id)
            self._current = run
            await self._show(run)
            self._last = exit_of((await run.wait()).reason)
            self._current = None
            self._moved.set()

    async def _show(self, run: Run) -> None:
        info = self._session.transcript.runs[run.id].info
        if "startedSeq" not in info:
            self._screen.note(result_text(await run.wait()))
            return
        if info["device"] != self._session.device:
            self._screen.note(f"{info['by']} ({info['device']}): {self._question_of(run)}")
        self._screen.note(f"[{run.id} · to stop it from elsewhere: {self._target.hint('cancel', run.id)}]")
        asking = asyncio.ensure_future(self._watch_requests(run))
        try:
            async for text in run:
                self._screen.write(text)
        finally:
            asking.cancel()
            await asyncio.wait({asking})
            self._ask(None)
        result = await run.wait()
        self._screen.end()
        own = result.cause == "user" and result.device == self._session.device  # `stop` has told of it
        if result.reason != "completed" and not own:
            self._screen.note(result_text(result))
        for steer in result.returned:
            self._screen.note(f"[not taken any more: {plain(steer['parts'])}]")

    def _question_of(self, run: Run) -> str:
        message = run.message
        asked = None if message is None else self._session.transcript.message(message["after"] or "")
        return "" if asked is None else plain(asked["parts"])

    async def _watch_requests(self, run: Run) -> None:
        asked: set[str] = set()
        while run.status != "ended":
            open_requests = {
                request["id"]: request for request in run.requests if _CHOICES.get(request["kind"]) is not None
            }
            for request in run.requests:
                if request["kind"] not in _CHOICES and request["id"] not in asked:  # of a newer server: others answer
                    asked.add(request["id"])
                    self._screen.note(f"[the run asks: {request_text(request)}]")
            if self._asked is not None and self._asked[1]["id"] not in open_requests:
                self._ask(None)  # somebody else answered, or it is too late
            unasked = [request for request_id, request in open_requests.items() if request_id not in asked]
            if self._asked is None and unasked:
                asked.add(unasked[0]["id"])
                self._ask((run, unasked[0]))
            await self._session.changed()

    def _ask(self, asked: tuple[Run, Request] | None) -> None:
        self._asked = asked
        self._moved.set()
        if asked is None:
            self._screen.question = None
            return
        request = asked[1]
        choice = _CHOICES[request["kind"]]
        self._screen.note(f"[the run asks: {request_text(request)}{choice}]")
        self._screen.question = f"answer{choice} "

    def _open_run(self) -> Run | None:
        if self._current is not None and self._current.status not in _STILL:
            return self._current
        return next((run for run in self._session.runs.values() if run.status not in _STILL), None)
