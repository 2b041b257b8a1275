"""Each rule that the design rests on is switched off, and a promise breaks; the same schedule passes with it on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from holdfast.server.agents import run as run_module
from holdfast.server.agents.agent import Agent
from holdfast.server.agents.run import Run
from holdfast.server.errors import StoreUnavailableError
from holdfast.server.registry import Decision
from holdfast.server.registry import decide as decide_function
from holdfast.server.session import core
from holdfast.server.session.core import Check, Core, Landed, Question
from holdfast.server.session.journal import Journal
from holdfast.server.session.mailbox import Mail, Mailbox
from holdfast.server.settings import SessionSettings
from holdfast.server.store import NO_LOG, NOTHING_OWED, Conflict, Owed
from tests.support.cluster import cluster
from tests.support.doubles import settled

Patch = pytest.MonkeyPatch
_ON = SessionSettings()
Schedule = Callable[[SessionSettings], Awaitable[None]]


def _no(*_: object) -> bool:
    return False


async def _regroup(self: Journal, call: Callable[[], Awaitable[Any]], *, failed: Exception | None = None) -> Any:
    """Takes a lost reply for a lost race: what was in the batch is decided again."""
    if failed is not None:
        return Conflict(NO_LOG)
    try:
        return await call()
    except StoreUnavailableError:
        return Conflict(NO_LOG)


def _give_up(*_: object) -> None:
    raise RuntimeError("a batch that cannot be encoded is lost whole")


def _nothing_to_do(*_: object) -> Decision:
    return Decision()


def _nothing_owed(*_: object) -> Owed:
    return NOTHING_OWED


def _decide_module() -> Any:
    return sys.modules[decide_function.__module__]


# The schedules: each raises AssertionError where its promise is broken.


async def _lost_reply(settings: SessionSettings) -> None:
    """A chunk whose append was accepted and not answered is in the log once."""
    async with cluster(settings=settings) as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        h.road.lose("append", "after")
        call.say("a")
        await settled()
        await h.clock.pass_ms(1_000)
        assert h.text("r1") == "a"


async def _stale_answer(settings: SessionSettings) -> None:
    """A node that has heard of nothing still knows what another one has started."""
    async with cluster(shared=True, settings=settings) as h:
        await h.start()
        one, two = await h.device("d1"), await h.device("d2", number=1)
        h.roads[1].deaf = True
        await one.send("send", id="r1", text="go")
        ack = await two.send("cancel", id="k1", runId="r1")
        assert ack["outcome"] == "cancelled"


async def _late_stop(settings: SessionSettings) -> None:
    """A stop that comes while the store is slow is not behind what the agent said before it."""
    async with cluster(settings=settings) as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        h.road.pause("append")
        call.say("a")
        await settled()
        call.say("b")
        call.end()
        await settled()
        answer = device.ask("cancel", id="k1", runId="r1")
        h.road.resume()
        assert (await answer)["outcome"] == "cancelled"
        assert h.text("r1") == "a"


async def _busy_owner(settings: SessionSettings) -> None:
    """A remote stop gets through in a few tries, however fast the owner appends."""
    async with cluster(shared=True, settings=settings) as h:
        await h.start()
        one, two = await h.device("d1"), await h.device("d2", number=1)
        await one.send("send", id="r1", text="go")
        call = await h.puppet.call()
        tries = 0

        async def owner_was_faster(method: str) -> None:
            nonlocal tries
            if method == "append" and tries < 30:
                tries += 1
                call.say("word ")
                await settled(20)

        h.roads[1].before = owner_was_faster
        answer = two.ask("cancel", id="k1", runId="r1")
        await settled(2_000)
        h.roads[1].before = None
        assert (await answer)["outcome"] == "cancelled"
        assert tries <= 4


async def _unclaimed_queue(settings: SessionSettings) -> None:
    """What the writer of a terminal cannot start, another node starts."""
    async with cluster(shared=True, settings=settings) as h:
        await h.start({"other": Agent("other", h.puppet)})
        one, two = await h.device("d1"), await h.device("d2", number=1)
        await one.send("send", id="r1", text="go")
        assert (await two.send("send", id="r2", text="go"))["outcome"] == "queued"
        (await h.puppet.call()).end()
        await h.clock.pass_ms(6_000, 500)
        assert h.kinds("r2")[-1] == "run.started"


async def _dead_process(settings: SessionSettings) -> None:
    """A run that a dead process left is found, though nobody opens its session."""
    async with cluster(settings=settings) as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await h.puppet.call()
        await h.kill()
        await h.start()
        await settled()
        assert h.kinds("r1")[-1] == "run.ended"


async def _dead_stopper(settings: SessionSettings) -> None:
    """A stopped run whose process died before its agent had stopped is settled, and unconfirmed."""
    stops = asyncio.Event()

    async def deaf(run: Run) -> None:
        while not stops.is_set():
            try:
                await stops.wait()
            except asyncio.CancelledError:
                continue

    async with cluster(settings=settings) as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", deaf)}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await settled()
        await device.send("cancel", id="k1", runId="r1")
        h.road.down = True
        stops.set()
        await settled()
        await h.start()
        await h.store.release(h.nodes[0].node)
        await h.nodes[1].sweep()
        await settled()
        assert [event["confirmed"] for event in h.of("r1", "run.settled")] == [False]


async def _bad_output(settings: SessionSettings) -> None:
    """What cannot be encoded ends the run that produced it, and no other."""

    async def wrong(run: Run) -> None:
        await run.data("thing", cast("Any", object()))

    async with cluster(settings=settings) as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", h.puppet), "wrong": Agent("wrong", wrong)}
        h.nodes[0].traits = {name: agent.traits for name, agent in h.nodes[0].agents.items()}
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        await device.send("send", id="r2", text="go", agent="wrong", whenBusy="alongside")
        await settled()
        call.say("fine")
        call.end()
        await settled()
        assert [event["reason"] for event in h.of("r1", "run.ended")] == ["completed"]


async def _overtaken(settings: SessionSettings) -> None:
    """Two histories of one session are never mixed: everyone shows what the log holds."""
    async with cluster(shared=True, settings=settings) as h:
        await h.start()
        one, two = await h.device("d1"), await h.device("d2", number=1)
        saved = h.store.save()
        h.road.deaf = True
        await one.send("send", id="r1", text="mine")
        h.store.roll_back(saved)
        await two.send("send", id="r2", text="theirs")
        await h.clock.pass_ms(6_000)
        assert one.messages == two.messages
        assert one.reader.epoch == two.reader.epoch


def _off_regroup(patch: Patch) -> SessionSettings:
    patch.setattr(Journal, "_until_available", _regroup)
    return _ON


def _off_head(patch: Patch) -> SessionSettings:
    ask = Journal.ask

    async def answered(self: Journal, question: Question, **named: Any) -> Landed | None:
        if isinstance(question, Check):
            self._core.checked(self.head)  # pyright: ignore[reportPrivateUsage]
            return None
        return await ask(self, question, **named)

    patch.setattr(Journal, "ask", answered)
    return _ON


def _off_order(patch: Patch) -> SessionSettings:
    take = Mailbox.take

    def outputs_first(self: Any, *, held: bool) -> Mail:
        if not self._ready:
            return take(self, held=held)
        ready, self._ready = self._ready, {}
        mail = self.batch = Mail(taken=[(worker, worker.take()) for worker in ready.values()])
        return mail

    patch.setattr(Mailbox, "take", outputs_first)
    return _ON


def _off_hold(patch: Patch) -> SessionSettings:
    return SessionSettings(contended_hold_ms=0)


def _off_claim(patch: Patch) -> SessionSettings:
    patch.setattr(_decide_module(), "decide_upkeep", _nothing_to_do)
    patch.setattr(_decide_module(), "decide_sweep", _nothing_to_do)
    return _ON


def _off_index(patch: Patch) -> SessionSettings:
    patch.setattr(core, "owed", _nothing_owed)
    return _ON


def _off_sweep(patch: Patch) -> SessionSettings:
    patch.setattr(_decide_module(), "decide_sweep", _nothing_to_do)
    return _ON


def _off_encode(patch: Patch) -> SessionSettings:
    patch.setattr(run_module, "_checked", dict)  # where an agent's output comes in
    patch.setattr(Core, "_leave_out", _give_up)  # and the net behind it
    return _ON


def _off_epoch(patch: Patch) -> SessionSettings:
    patch.setattr(Core, "_lost", _no)
    patch.setattr(Core, "_went_back", _no)
    return _ON


_RULES: list[tuple[str, Schedule, Callable[[Patch], SessionSettings]]] = [
    ("an unknown outcome is made known first", _lost_reply, _off_regroup),
    ("answers that add nothing are given on a fresh head", _stale_answer, _off_head),
    ("commands are decided before output", _late_stop, _off_order),
    ("a node makes room for one that lost a race", _busy_owner, _off_hold),
    ("any able node claims a queued run", _unclaimed_queue, _off_claim),
    ("sessions where something is owed stand in the index", _dead_process, _off_index),
    ("a dead owner's stopped run is settled by the sweep", _dead_stopper, _off_sweep),
    ("output is encoded before it is batched", _bad_output, _off_encode),
    ("lost contents begin a new epoch", _overtaken, _off_epoch),
]
_NAMES = [name for name, _, _ in _RULES]


@pytest.mark.parametrize("schedule", [schedule for _, schedule, _ in _RULES], ids=_NAMES)
async def test_with_the_rule_the_promise_holds(schedule: Schedule) -> None:
    """The schedule as it is."""
    await schedule(_ON)


@pytest.mark.parametrize(("schedule", "switch_off"), [(s, off) for _, s, off in _RULES], ids=_NAMES)
async def test_without_the_rule_the_promise_breaks(
    schedule: Schedule, switch_off: Callable[[Patch], SessionSettings], monkeypatch: Patch
) -> None:
    """The same schedule, with what implements the rule replaced."""
    settings = switch_off(monkeypatch)
    before = asyncio.all_tasks()
    with pytest.raises(AssertionError):
        await schedule(settings)
    for task in asyncio.all_tasks() - before:  # a broken cluster is not put in order
        task.cancel()
