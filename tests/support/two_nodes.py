"""Two nodes over one store, their agents and clients: everything a schedule can do to them, and what must hold then.

A schedule is a list of steps, so that a counterexample is a readable test:

    asyncio.run(play([("send", 0, "queue"), ("produce", 0, 2), ("lose_reply", "a", "append", "after"), ("kill", "a")]))

Steps that make no sense where they stand do nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from holdfast.protocol.control import Ack
from holdfast.protocol.errors import CommandError
from holdfast.server.agents.agent import Agent
from holdfast.server.agents.run import Run
from holdfast.server.node.node import Node
from holdfast.server.registry import Ask
from holdfast.server.session.actor import Session
from holdfast.server.settings import SessionSettings
from tests.support.client_model import Replied, check_readers, check_replies
from tests.support.doubles import Device, FakeClock, NodeClock, settled
from tests.support.faulty_store import FaultyStore, SharedStore
from tests.support.log_model import Author, LogModel, require

Step = tuple[Any, ...]
SESSION: Final = "s"
_SETTINGS: Final = SessionSettings(replay_window_ms=30_000, recent_events=16, snapshot_beyond=200)
_PEOPLE: Final = (("ana", "phone"), ("ana", "desk"), ("ben", "phone"))


class Work:
    """One call of an agent, which does what the schedule says."""

    def __init__(self, author: Author, both: TwoNodes) -> None:
        self.author = author
        self.steps: asyncio.Queue[object] = asyncio.Queue()
        self.asking = False
        self.over = False
        self._both = both

    async def go_on(self, run: Run) -> AsyncIterator[str]:
        """The agent."""
        produced = self._both.produced.setdefault(self.author, [])
        try:
            while True:
                match await self.steps.get():
                    case "end":
                        return
                    case "fail":
                        raise ValueError("as the schedule says")
                    case "ask":
                        self.asking = True
                        await run.ask("input", prompt="?", expires_ms=4_000)
                        self.asking = False
                    case _:
                        text = f"⟨{self.author.run_id}·{self.author.attempt}·{len(produced)}·{run.run_id}😀⟩"
                        produced.append(text)
                        self._both.offered.add(text)
                        yield text
                        self._both.offered.discard(text)
        finally:
            self.over = True
            self._both.works.remove(self)


class Place:
    """One node and its way to the store."""

    def __init__(self, both: TwoNodes, agents: Sequence[str]) -> None:
        self.both = both
        self.names = agents
        self.road = FaultyStore(both.store)
        everyone = {
            "solo": Agent("solo", self._agent),
            "phoenix": Agent("phoenix", self._agent, restartable=True),
        }
        self.node = Node(
            self.road,
            {name: everyone[name] for name in agents},
            clock=NodeClock(both.clock, odd="solo" in agents),
            settings=both.settings,
        )
        self.held = AsyncExitStack()
        self.draining: asyncio.Task[None] | None = None

    def _agent(self, run: Run) -> AsyncIterator[str]:
        work = Work(Author(run.run_id, self.node.node, run.attempt), self.both)
        self.both.works.append(work)
        return work.go_on(run)

    async def session(self) -> Session:
        """The session, held open while the node lives."""
        return await self.held.enter_async_context(self.node.open(SESSION))


class TwoNodes:
    """All there is. Each public coroutine is a step."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.settings = _SETTINGS
        self.store = SharedStore(self.clock.now)
        self.works: list[Work] = []
        """Calls of agents that go on."""
        self.produced: dict[Author, list[str]] = {}
        self.offered: set[str] = set()
        """Texts whose agent was stopped while it handed them over: they may be in the log, or not."""
        self.doubtful: set[Author] = set()
        """Those who had spoken when the store lost data."""
        self.places: dict[str, Place] = {}
        self.devices: list[Device] = []
        self.sent: list[tuple[int, str, dict[str, Any]]] = []
        self.alongside: set[str] = set()
        self.replies: list[Replied] = []
        self.saved: Any = None
        self._compactions = 0
        self._losses = 0
        self._ids = 0

    async def begin(self) -> None:
        """Two nodes and three devices."""
        for name, agents in (("a", ("solo", "phoenix")), ("b", ("phoenix",))):
            await self._start(name, agents)
        for number, (principal, name) in enumerate(_PEOPLE):
            place = self.places["ab"[number % 2]]
            device = Device(await place.session(), principal=principal, device=name)
            self.devices.append(device)
            await device.join()

    async def _start(self, name: str, agents: Sequence[str]) -> None:
        place = self.places[name] = Place(self, agents)
        await place.node.start()

    def _head(self) -> tuple[str, int]:
        ledger = self.store.ledger.get(SESSION)
        return (ledger[-1][0], ledger[-1][1]["seq"]) if ledger else ("", 0)

    def _answered(self, ask: Ask, reply: Ack | CommandError, head: tuple[str, int]) -> None:
        epoch = self._head()[0]
        if not isinstance(reply, CommandError) and "seq" in reply:
            seq = reply["seq"]
            found = [known for known, event in self.store.ledger.get(SESSION, ()) if event["seq"] == seq]
            epoch = found[-1] if found else ""
        self.replies.append(Replied(ask, head, epoch, reply))

    # What clients do

    def _new(self, prefix: str) -> str:
        self._ids += 1
        return f"{prefix}{self._ids}"

    def _some_run(self, pick: int) -> str:
        runs = [fields["id"] for _, kind, fields in self.sent if kind in ("send", "steer")]
        return runs[-1 - pick % len(runs)] if runs else "r0"

    def _ask(self, who: int, kind: str, **fields: Any) -> None:
        device = self.devices[who]
        if device.wire.closed:
            return
        fields = {name: value for name, value in fields.items() if value is not None}
        self.sent.append((who, kind, fields))
        if fields.get("whenBusy") == "alongside":
            self.alongside.add(fields["id"])
        head = self._head()
        losses = self._losses
        # A head that was lost meanwhile says nothing about what was known: another log may have come that far.
        device.heard = lambda ask, reply: self._answered(ask, reply, head if losses == self._losses else ("", 0))
        device.ask(kind, **fields)

    def _seen(self, who: int, back: int | None) -> dict[str, Any] | None:
        reader = self.devices[who].reader
        if back is None or not reader.epoch:
            return None
        return {"epoch": reader.epoch, "seq": max(0, reader.seq - back)}

    async def send(self, who: int, busy: str, agent: str | None = None, back: int | None = None) -> None:
        """A message."""
        seen = self._seen(who, back) if busy == "interrupt" else None
        self._ask(who, "send", id=self._new("r"), text="go", whenBusy=busy, agent=agent, seen=seen)

    async def again(self, who: int, pick: int) -> None:
        """A command of the same principal once more, over whatever connection there is now."""
        mine = [item for item in self.sent if _PEOPLE[item[0]][0] == _PEOPLE[who][0]]
        if mine:
            _, kind, fields = mine[-1 - pick % len(mine)]
            self._ask(who, kind, **fields)

    async def cancel(self, who: int, pick: int, back: int | None = None) -> None:
        """A stop."""
        self._ask(who, "cancel", id=self._new("k"), runId=self._some_run(pick), seen=self._seen(who, back))

    async def prevent(self, who: int) -> None:
        """A stop that overtakes its send."""
        run_id = self._new("r")
        self._ask(who, "cancel", id=self._new("k"), runId=run_id, ifUnknown="prevent")
        self._ask(who, "send", id=run_id, text="go")

    async def scope(self, who: int, back: int) -> None:
        """A stop of everything up to a position."""
        up_to = self._seen(who, back)
        if up_to is not None:
            self._ask(who, "cancel", id=self._new("k"), scope="session", upTo=up_to)

    async def steer(self, who: int, pick: int | None, boundary: str, ended: str, back: int | None = None) -> None:
        """A steer of a run, or of the main one."""
        run_id = None if pick is None else self._some_run(pick)
        seen = self._seen(who, back) if boundary == "now" else None
        self._ask(
            who, "steer", id=self._new("s"), text="rather", runId=run_id, boundary=boundary, ifEnded=ended, seen=seen
        )

    async def withdraw(self, who: int, pick: int) -> None:
        """A steer taken back."""
        self._ask(who, "withdraw", id=self._new("w"), steerId=self._some_run(pick))

    async def answer(self, who: int, pick: int, number: int) -> None:
        """An answer, to a request that may be there."""
        self._ask(who, "answer", id=self._new("q"), runId=self._some_run(pick), requestId=f"q-1-{number}", value=who)

    async def drop(self, who: int) -> None:
        """A cut line."""
        self.devices[who].leave()

    async def slow(self, who: int) -> None:
        """It stops reading."""
        self.devices[who].wire.congested = True

    async def read(self, who: int) -> None:
        """It reads again."""
        self.devices[who].wire.flow()

    async def resume(self, who: int, node: str, back: int = 0) -> None:
        """A new connection to any node, from where it stands or from a place it had stored before."""
        device, place = self.devices[who], self.places[node]
        if not device.wire.closed:
            device.leave()
        if back:
            device.reader.rewind(back)
        cursor = device.cursor()
        device.connect(await place.session())
        joining = asyncio.ensure_future(device.join(cursor))
        await settled(40)
        if not joining.done():  # the store says nothing: it gives up, and may try again
            joining.cancel()
            await asyncio.gather(joining, return_exceptions=True)
            device.leave()
        elif not joining.cancelled() and joining.exception() is not None:
            raise joining.exception() or AssertionError("unreachable")

    # What agents do

    async def produce(self, pick: int, count: int) -> None:
        """An agent says something."""
        if self.works:
            for _ in range(count):
                self.works[pick % len(self.works)].steps.put_nowait("text")

    async def agent(self, pick: int, what: str) -> None:
        """An agent ends, fails, or asks."""
        if self.works:
            self.works[pick % len(self.works)].steps.put_nowait(what)

    # What happens to them

    async def lose_reply(self, node: str, method: str, loss: str) -> None:
        """The next call fails before or after it has done what it was to do."""
        fault: Any = loss
        self.places[node].road.lose(method, fault)

    async def pause(self, node: str) -> None:
        """The store says nothing to a node."""
        self.places[node].road.pause("append", "heads", "read", "open", "renew")

    async def unpause(self, node: str) -> None:
        """It answers again."""
        self.places[node].road.resume()

    async def cut(self, node: str) -> None:
        """The store refuses a node."""
        self.places[node].road.down = True

    async def mend(self, node: str) -> None:
        """And takes it again."""
        self.places[node].road.down = False

    async def deafen(self, node: str) -> None:
        """Wake-ups are lost from now on."""
        self.places[node].road.deaf = True

    async def time(self, ms: int) -> None:
        """Time passes, in steps that are shorter than what waits for it."""
        await self.clock.pass_ms(ms, 250)

    async def save(self) -> None:
        """A replica falls behind here."""
        self.saved = self.store.save()
        self._compactions = self.store.compactions

    async def roll_back(self) -> None:
        """The replica takes over: what was acknowledged since is lost, but nothing that a checkpoint stands on."""
        if self.saved is None or self.store.compactions != self._compactions:
            return
        count = len(self.store.ledger.get(SESSION, ()))
        self.store.roll_back(self.saved)
        # A run that is started again after its start was lost has the same owner: what the first one said may be gone.
        self.doubtful |= set(self.produced)
        kept = len(self.store.ledger.get(SESSION, ()))
        if kept < count:
            self._losses += 1
            floor = self.store.ledger[SESSION][-1][1]["seq"] if kept else 0
            self.replies = [
                replied
                for replied in self.replies
                if isinstance(replied.reply, CommandError) or max(replied.reply.get("seq", 0), replied.head[1]) <= floor
            ]
        self.clock.advance(1_000)  # what is written again has another time

    async def drain(self, node: str) -> None:
        """A node is told to end."""
        place = self.places[node]
        if place.draining is None:
            place.draining = asyncio.ensure_future(place.node.drain(1_000))

    async def kill(self, node: str) -> None:
        """The process dies, and another one starts in its place."""
        place = self.places[node]
        place.road.down = True
        place.road.resume()
        place.road.faults.clear()
        for device in self.devices:
            if not device.wire.closed and device.session in place.node.sessions.values():
                device.leave()
        await self._bury(place)
        await self._start(node, place.names)

    async def _bury(self, place: Place) -> None:
        """Ends what there is of a process without a word to the store."""
        if place.draining is not None:
            place.draining.cancel()
            await asyncio.gather(place.draining, return_exceptions=True)
        await place.held.aclose()
        for session in place.node.sessions.values():
            for worker in list(session.workers.values()):
                worker.drop()
        await settled(5)
        for session in place.node.sessions.values():
            session.abort()
        await place.node.stop()
        await self.store.release(place.node.node)

    # The end

    async def end(self) -> None:
        """Everything is mended and everybody wants to be done: all ends, and what everyone holds then agrees."""
        for place in self.places.values():
            place.road.down = place.road.deaf = False
            place.road.faults.clear()
            place.road.resume()
        for name, place in list(self.places.items()):
            if place.draining is not None:
                await self.kill(name)
        for device in self.devices:
            device.wire.flow()
        for _ in range(40):
            for work in list(self.works):
                work.steps.put_nowait("end")
            await self.clock.pass_ms(1_000, 250)
            if not self.works and not await self.store.orphans(frozenset(), 0):
                break
        for who in range(len(self.devices)):
            if self.devices[who].wire.closed:
                await self.resume(who, "ab"[who % 2])
        newcomer = Device(await self.places["b"].session(), device="newcomer")
        await newcomer.join()
        self.devices.append(newcomer)
        await self.clock.pass_ms(6_000, 500)
        self._check()
        await self._let_go()

    def _check(self) -> None:
        for device in self.devices:
            device.check()
        require(not self.works, f"agents of {[work.author for work in self.works]} are left behind")
        model = LogModel(self.produced, self.alongside)
        events = self.store.ledger.get(SESSION, [])
        logged = "".join(str(event.get("delta", "")) for _, event in events)
        lost = "".join(str(event.get("delta", "")) for event in self.store.lost)
        model.lost_texts = {
            text
            for author, texts in self.produced.items()
            for text in texts
            if text not in logged and (text in lost or text in self.offered or author in self.doubtful)
        }
        for epoch, event in events:
            model.add(epoch, event)
        model.finish()
        check_readers([device.reader for device in self.devices], model)
        check_replies(self.replies, model)

    async def _let_go(self) -> None:
        for device in self.devices:
            device.leave()
        for place in self.places.values():
            await place.held.aclose()
        await self.clock.pass_ms(35_000, 1_000)
        for name, place in self.places.items():
            require(not place.node.sessions, f"{name} keeps sessions open that nobody uses")
        require(self.clock.waiting == len(self.places), "timers are left behind")
        for place in self.places.values():
            await place.node.stop()
        require(not self.clock.waiting, f"timers are left behind: {self.clock.left}")


async def play(steps: Sequence[Step]) -> None:
    """Plays a schedule from its beginning to its end. Raises AssertionError for a broken promise."""
    before = asyncio.all_tasks()
    both = TwoNodes()
    await both.begin()
    for name, *details in steps:
        if name == "rest":
            await settled(*details)
            continue
        step: Callable[..., Any] = getattr(both, name)
        both.clock.advance(2)
        await step(*details)
    await both.end()
    await settled()
    left = [task.get_name() for task in asyncio.all_tasks() - before]
    require(not left, f"tasks are left behind: {left}")
