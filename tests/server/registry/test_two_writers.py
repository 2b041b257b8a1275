"""Any interleaving of two writers, their agents, clients and misfortunes keeps every promise.

`HOLDFAST_SCHEDULES=10000` searches deeper than the usual profile. A failure prints its schedule as a call of `replay`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.two_writers import SharedLog, replay

NODES = st.sampled_from(["a", "b"])
HANDS = st.sampled_from(["a!", "a!", "b!", "a", "b"])
"""A node, and whether it gets to its work at once."""
CLIENTS = st.sampled_from(["ana/phone", "ana/laptop", "bo/tablet"])
READERS = st.sampled_from(["one", "two", "three"])
PICK = st.integers(0, 5)
BACK = st.none() | st.integers(-2, 12)
BUSY = st.sampled_from(["queue", "queue", "interrupt", "alongside", "reject", "steer"])
SOMETIMES = st.sampled_from([False, False, True])


class TwoWriters(RuleBasedStateMachine):
    """Schedules. Ids are counted, so that a schedule can be read; a pick chooses among the youngest there are."""

    def __init__(self) -> None:
        super().__init__()
        self.world = SharedLog()
        self.ids: list[str] = []
        """Of runs, and of steers that may become runs."""
        self.commands = 0
        self.broken = False
        """A step has failed: what comes after it says nothing."""

    def teardown(self) -> None:
        """Everything ends, and agrees."""
        if not self.broken:
            self._try(self.world.end)

    def _take(self, *step: Any) -> None:
        self._try(lambda: self.world.take(step))

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException:
            self.broken = True
            note(f"replay({self.world.steps!r})")
            raise

    def _soon(self, hand: str) -> None:
        if hand.endswith("!"):
            self._take("work", hand[0])

    def _ask(self, hand: str, client: str, kind: str, **fields: Any) -> None:
        self._take("ask", hand[0], client, {"type": kind, **{name: v for name, v in fields.items() if v is not None}})
        self._soon(hand)

    def _new(self, prefix: str) -> str:
        self.commands += 1
        return f"{prefix}{self.commands}"

    def _id(self, pick: int) -> str:
        return self.ids[-1 - pick % len(self.ids)] if self.ids else "never"

    def _position(self, back: int | None) -> dict[str, Any] | None:
        log = self.world.log
        return None if back is None else {"epoch": log.epoch, "seq": max(0, log.seq - back)}

    @rule(
        hand=HANDS,
        client=CLIENTS,
        busy=BUSY,
        back=BACK,
        agent=st.sampled_from([None, "solo", "phoenix"]),
        deadline=st.sampled_from([None, None, None, 3000]),
        patience=st.sampled_from([None, None, None, 2000]),
        message=st.sampled_from([None, None, "m1", "m2"]),
    )
    def send(
        self,
        hand: str,
        client: str,
        busy: str,
        back: int | None,
        agent: str | None,
        deadline: int | None,
        patience: int | None,
        message: str | None,
    ) -> None:
        """Somebody sends a message."""
        self.ids.append(self._new("r"))
        self._ask(
            hand,
            client,
            "send",
            id=self.ids[-1],
            text="go",
            whenBusy=busy,
            seen=self._position(back) if busy == "interrupt" else None,
            agent=agent,
            messageId=message,
            deadlineMs=deadline,
            whenAbandoned=None if patience is None else {"cancelAfterMs": patience},
        )

    @rule(hand=HANDS, number=st.integers(0, 60))
    def again(self, hand: str, number: int) -> None:
        """A command is sent once more, however late."""
        self._take("again", hand[0], number)
        self._soon(hand)

    @precondition(lambda self: self.ids)
    @rule(hand=HANDS, client=CLIENTS, pick=PICK)
    def another_body(self, hand: str, client: str, pick: int) -> None:
        """An id is used for something else."""
        self._ask(hand, client, "send", id=self._id(pick), text="something else")

    @rule(hand=HANDS, client=CLIENTS, pick=PICK, back=BACK)
    def cancel(self, hand: str, client: str, pick: int, back: int | None) -> None:
        """Somebody presses stop."""
        self._ask(hand, client, "cancel", id=self._new("k"), runId=self._id(pick), seen=self._position(back))

    @rule(hand=HANDS, other=HANDS, client=CLIENTS, first=st.booleans())
    def send_and_stop(self, hand: str, other: str, client: str, *, first: bool) -> None:
        """Somebody sends and presses stop at once; who knows what arrives first, and where."""
        self.ids.append(self._new("r"))
        if first:
            self._ask(hand, client, "send", id=self.ids[-1], text="go")
        self._ask(other, client, "cancel", id=self._new("k"), runId=self.ids[-1], ifUnknown="prevent")
        if not first:
            self._ask(hand, client, "send", id=self.ids[-1], text="go")

    @rule(hand=HANDS, client=CLIENTS, back=st.integers(0, 12), seen=BACK)
    def cancel_scope(self, hand: str, client: str, back: int, seen: int | None) -> None:
        """Somebody stops all there is, which may arrive late; `again` sends it even later."""
        self._ask(
            hand,
            client,
            "cancel",
            id=self._new("k"),
            scope="session",
            upTo=self._position(back),
            seen=self._position(seen),
        )

    @rule(
        hand=HANDS,
        client=CLIENTS,
        pick=st.none() | PICK,
        boundary=st.sampled_from(["now", "step"]),
        ended=st.sampled_from(["return", "send"]),
        back=BACK,
    )
    def steer(self, hand: str, client: str, pick: int | None, boundary: str, ended: str, back: int | None) -> None:
        """Somebody steers a run, or the main one."""
        run_id = None if pick is None else self._id(pick)
        self.ids.append(self._new("s"))
        seen = self._position(back) if boundary == "now" else None
        self._ask(
            hand,
            client,
            "steer",
            id=self.ids[-1],
            text="rather",
            runId=run_id,
            boundary=boundary,
            ifEnded=ended,
            seen=seen,
        )

    @precondition(lambda self: self.agents())
    @rule(client=CLIENTS, pick=PICK, ended=st.sampled_from(["return", "send"]), back=BACK, soon=st.booleans())
    def steer_and_take(self, client: str, pick: int, ended: str, back: int | None, *, soon: bool) -> None:
        """Somebody steers a run that goes on, and its agent takes the steer."""
        node, run_id = self._agent(pick)
        self.ids.append(self._new("s"))
        self._ask(
            f"{node}!",
            client,
            "steer",
            id=self.ids[-1],
            text="rather",
            runId=run_id,
            ifEnded=ended,
            seen=self._position(back),
        )
        self._take("boundary", node, run_id)
        if soon:
            self._take("work", node)

    @rule(hand=HANDS, client=CLIENTS, pick=PICK)
    def withdraw(self, hand: str, client: str, pick: int) -> None:
        """Somebody takes a steer back."""
        self._ask(hand, client, "withdraw", id=self._new("w"), steerId=self._id(pick))

    @precondition(lambda self: self.agents())
    @rule(hand=HANDS, client=CLIENTS, pick=PICK, late=SOMETIMES)
    def answer(self, hand: str, client: str, pick: int, *, late: bool) -> None:
        """Somebody answers a request of a run, there or not."""
        node, run_id = self._agent(pick)
        agent = self.world.writers[node].running[run_id]
        request_id = f"{run_id}.{agent.owner.attempt}.{max(1, agent.asked - late)}"
        self._ask(hand, client, "answer", id=self._new("q"), runId=run_id, requestId=request_id, value=client)

    def agents(self) -> list[tuple[str, str]]:
        """Who works on what: node and run."""
        return [(node, run_id) for node, writer in self.world.writers.items() for run_id in writer.running]

    def _agent(self, pick: int) -> tuple[str, str]:
        agents = self.agents()
        return agents[pick % len(agents)]

    def _does(self, what: str, pick: int, soon: bool, *details: Any) -> None:
        node, run_id = self._agent(pick)
        self._take(what, node, run_id, *details)
        if soon:
            self._take("work", node)

    @precondition(lambda self: self.agents())
    @rule(pick=PICK, count=st.integers(1, 3), kind=st.sampled_from(["text", "text", "reasoning"]), soon=st.booleans())
    def produce(self, pick: int, count: int, kind: str, *, soon: bool) -> None:
        """An agent goes on."""
        node, run_id = self._agent(pick)
        for _ in range(count):
            self._take("produce", node, run_id, kind)
            if soon:
                self._take("work", node)

    @precondition(lambda self: self.agents())
    @rule(
        pick=PICK,
        what=st.sampled_from(["call_tool", "boundary", "boundary", "request", "retract", "settle", "settle"]),
        soon=st.booleans(),
    )
    def agent_does(self, pick: int, what: str, *, soon: bool) -> None:
        """An agent calls a tool, takes its steers, asks, or has stopped."""
        self._does(what, pick, soon)

    @precondition(lambda self: self.agents())
    @rule(pick=PICK, soon=st.booleans())
    def ask_in_time(self, pick: int, *, soon: bool) -> None:
        """An agent asks, and does not wait for ever."""
        self._does("request", pick, soon, 2500)

    @precondition(lambda self: self.agents())
    @rule(pick=PICK, how=st.sampled_from(["finish", "finish_failed", "finish_unless_steered"]), soon=st.booleans())
    def finish(self, pick: int, how: str, *, soon: bool) -> None:
        """An agent is done, and means it or would go on with a steer."""
        self._does(how, pick, soon)

    @precondition(lambda self: self.agents())
    @rule(pick=PICK, soon=SOMETIMES)
    def shut(self, pick: int, *, soon: bool) -> None:
        """A node ends what it has."""
        self._does("shut", pick, soon)

    @rule(node=NODES)
    def work(self, node: str) -> None:
        """A node is left in peace for a while."""
        self._take("work", node)

    @rule(node=NODES)
    def decide(self, node: str) -> None:
        """A node decides, and is paused before it appends."""
        self._take("decide", node)

    @rule(node=NODES, reply_lost=SOMETIMES)
    def append(self, node: str, *, reply_lost: bool) -> None:
        """A node appends, and may not hear how it went."""
        self._take("append_unheard" if reply_lost else "append", node)

    @rule(
        hand=HANDS,
        what=st.sampled_from(
            ["refresh", "upkeep", "upkeep", "sweep", "sweep", "compact", "compact_all", "lapse", "renew"]
        ),
    )
    def node_does(self, hand: str, what: str) -> None:
        """A node looks after things, or fails to."""
        self._take(what, hand[0])
        self._soon(hand)

    @rule(node=NODES, accepting=st.booleans())
    def drain(self, node: str, *, accepting: bool) -> None:
        """A node takes no new runs, or does again."""
        self._take("accept" if accepting else "drain", node)

    @rule(node=NODES)
    def kill(self, node: str) -> None:
        """A process dies, and another one starts in its place."""
        self._take("kill", node)

    @rule(milliseconds=st.sampled_from([1, 700, 3000]))
    def tick(self, milliseconds: int) -> None:
        """Time passes."""
        self._take("tick", milliseconds)

    @precondition(lambda self: self.world.log.batches)
    @rule(count=st.integers(1, 3), really=SOMETIMES)
    def lose(self, count: int, *, really: bool) -> None:
        """The store forgets what it acknowledged last."""
        if really:
            self._take("lose", count)

    @rule(reader=READERS, node=NODES, back=st.sampled_from([0, 0, 0, 1, 4, 20]))
    def attach(self, reader: str, node: str, back: int) -> None:
        """A reader connects, with its cursor or with an older one."""
        self._take("attach", reader, node, back)

    @rule(reader=READERS)
    def detach(self, reader: str) -> None:
        """A reader's connection is gone."""
        self._take("detach", reader)


def test_any_schedule_keeps_the_promises() -> None:
    """Whatever two writers, their agents, clients and the store do, every promise is kept and everything ends."""
    run_state_machine_as_test(TwoWriters)


def test_a_command_that_waited_while_the_store_lost_what_it_saw() -> None:
    """Nothing is promised upon a head that is gone: another log may have come as far meanwhile."""
    replay(
        [
            ("send", "b", "ana/phone", "r1"),
            ("work", "b"),
            ("cancel", "a", "ana/phone", "k2", "r1"),
            ("lose", 1),
            ("send", "a", "ana/phone", "r1", "interrupt"),
            ("work", "a"),
        ]
    )
