"""The session without I/O, over a store that is a list of batches: nothing twice, nothing lost, everybody told once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocol.errors import HoldfastError
from holdfast.server.registry import Ask, Chunk, Decision, Finish, Owner, Record, RunLimits, SessionState, Work, fold
from holdfast.server.registry.effects import Ended, Start
from holdfast.server.session.core import CatchUp, Check, Core, Found, Landed, Look, Open, Question, Renumber, Stage
from holdfast.server.session.ports import Output
from holdfast.server.session.records import decode_batch
from holdfast.server.store import Append, Appended, Batch, Conflict, Head, Log, Tail
from tests.support.pure_session import AGENTS, command, dump

NOW = 1_000_000


class ListStore:
    """One log, as a list of batches."""

    def __init__(self) -> None:
        self.epoch, self.start = "e1", 0
        self.batches: list[Batch] = []
        self.conflict_batches = True
        """Whether a conflict says what was missed."""

    @property
    def head(self) -> Head:
        """Where the log ends."""
        last = self.batches[-1] if self.batches and self.batches[-1].last_seq > self.start else None
        return Head(self.epoch, last.last_seq if last else self.start, last.batch_id if last else "")

    def append(self, append: Append) -> Appended | Conflict:
        """Compare and append; a batch repeated unchanged is added once."""
        if self.head.batch_id == append.batch.batch_id and append.expected.epoch == self.epoch:
            return Appended(self.head, contended=False)
        if append.expected != self.head:
            known = self.conflict_batches and append.expected.epoch == self.epoch
            return Conflict(self.head, self.read(append.expected.seq - 1) if known else ())
        self.batches.append(append.batch)
        return Appended(self.head, contended=False)

    def read(self, after: int) -> tuple[Batch, ...]:
        """The batches that end behind `after`."""
        return tuple(batch for batch in self.batches if batch.last_seq > after)

    def fold(self, up_to: int) -> SessionState:
        """The state at a head."""
        state = SessionState(self.epoch)
        for batch in self.batches:
            for record in decode_batch(batch.payload):
                if record.event["seq"] <= up_to:
                    state.transcript.seq = record.event["seq"] - 1
                    fold(state, record)
        state.transcript.seq = max(state.seq, self.start if up_to >= self.start else 0)
        return state

    def log(self) -> Log:
        """What opening it gives."""
        return Log(self.head, None, tuple(self.batches))


@dataclass
class FakeWorker:
    """What works on a run here."""

    owner: Owner
    said: list[Output] = field(default_factory=list[Output])

    def take(self) -> list[Output]:
        """All that waits."""
        taken, self.said = self.said, []
        return taken


@dataclass
class Here:
    """This node, as it is now."""

    traits: Any = field(default_factory=lambda: dict(AGENTS))
    accepting: bool = True
    working: dict[str, FakeWorker] = field(default_factory=dict[str, FakeWorker])
    watched: bool = True
    left_in_order: bool = False


class Driver:
    """A core and whoever drives it: everything that happens is a step that a test takes."""

    def __init__(self, store: ListStore, node: str = "n1", *, shared: bool = True, open_it: bool = True) -> None:
        self.store, self.node, self.here = store, node, Here()
        self.failures: list[tuple[Work, Exception]] = []
        epochs = iter(range(2, 1000))
        self.core = Core(
            "s",
            node,
            self.here,
            shared=shared,
            limits=RunLimits(),
            batch_prefix=f"{node}-",
            name_epoch=lambda: f"{node}e{next(epochs)}",
            failed=lambda work, error: self.failures.append((work, error)),
        )
        self.question: Question | None = None
        self.lost = False
        self.told: dict[str, list[Any]] = {}
        self.reads: list[HoldfastError | None] = []
        self.asked_reads = 0
        self.outputs: Counter[str] = Counter()
        """What outputs were told, by text."""
        self.landed: list[Landed] = []
        self.texts = 0
        if open_it:
            self.settle()

    # What comes in

    def ask(self, kind: str, command_id: str, **fields: Any) -> list[Any]:
        """A command; what its sender is told."""
        told = self.told.setdefault(command_id, [])
        self.core.mailbox.command(Ask("ana", "phone", command(kind, command_id, **fields)), 0.0, told.append)
        return told

    def send(self, run_id: str) -> list[Any]:
        """A message."""
        return self.ask("send", run_id, text="go")

    def read(self) -> None:
        """Somebody wants to read."""
        self.asked_reads += 1

        def told(error: HoldfastError | None) -> None:
            self.reads.append(error)

        self.core.mailbox.read(told)

    def say(self, run_id: str, kind: str = "text", **fields: Any) -> str | None:
        """A worker brings a text that nothing else ever brings."""
        worker = self.here.working.get(run_id)
        if worker is None:
            return None
        self.texts += 1
        delta = f"<{self.node}.{self.texts}>"

        def done(_: Decision) -> None:
            self.outputs[delta] += 1

        worker.said.append(Output(Chunk.of(worker.owner, kind, {"delta": delta, **fields}), done=done))
        self._ready(worker)
        return delta

    def finish(self, run_id: str) -> None:
        """A worker is done."""
        worker = self.here.working.get(run_id)
        if worker is not None:
            worker.said.append(Output(Finish(worker.owner, "completed")))
            self._ready(worker)

    def _ready(self, worker: Any) -> None:
        self.core.mailbox.ready(worker)

    # What is driven

    def next(self) -> Question | Landed | None:
        """One step of the core; a question waits for its answer."""
        assert self.question is None
        step = self.core.next(NOW, 0.0)
        if isinstance(step, Landed):
            self._carry_out(step)
        else:
            self.question, self.lost = step, False
        return step

    def answer(self, *, lost: bool = False) -> Landed | None:
        """The store answers what was asked; with `lost` an append is done, and nobody hears of it."""
        question, core, store = self.question, self.core, self.store
        assert question is not None
        if lost and isinstance(question, Append):
            store.append(question)
            self.lost = True
            return None
        self.question = None
        landed: Landed | None = None
        match question:
            case Open():
                landed = core.opened(store.log(), store.fold(store.head.seq))
            case Look():
                core.looked(Found())
            case Append():
                landed = core.appended(store.append(question), sure=not self.lost)
            case Check():
                core.checked(store.head)
            case CatchUp(head):
                landed = core.caught_up(Tail(store.head, 0, store.read(max(0, head.seq - 1))))
            case Renumber(expected, epoch, seq):
                if store.head == expected:
                    store.epoch, store.start = epoch, seq
                core.renumbered()
        if landed is not None:
            self._carry_out(landed)
        return landed

    def settle(self) -> None:
        """Goes on until nothing waits."""
        for _ in range(200):
            if self.question is not None:
                self.answer()
            elif self.next() is None:
                return
        raise AssertionError("it comes to rest")

    def _carry_out(self, landed: Landed) -> None:
        self.landed.append(landed)
        assert dump(self.core.state) == dump(self.store.fold(self.core.head.seq)), "the state is the log"
        for effect in landed.effects:
            if isinstance(effect, Start):
                run = effect.run
                self.here.working[run.run_id] = FakeWorker(Owner(run.run_id, run.node, run.attempt))
            elif isinstance(effect, Ended):
                self.here.working.pop(effect.run_id, None)
        if landed.mail is not None:
            for item in landed.mail.items:
                item.tell()
            for _, outputs in landed.mail.taken:
                for output in outputs:
                    output.tell()
            for read in landed.mail.reads:
                read(None)


def check(store: ListStore, *drivers: Driver) -> None:
    """Nothing is in the log twice or out of order, and everybody was told once."""
    records: list[Record] = [record for batch in store.batches for record in decode_batch(batch.payload)]
    seqs = [record.event["seq"] for record in records]
    assert seqs == sorted(set(seqs))
    assert len({batch.batch_id for batch in store.batches}) == len(store.batches)
    events: list[Any] = [record.event for record in records]
    said = Counter(event["delta"] for event in events if event["type"] == "run.chunk")
    assert set(said.values()) <= {1}, "no text is in the log twice"
    for driver in drivers:
        assert all(len(told) == 1 for told in driver.told.values()), driver.told
        assert driver.reads == [None] * driver.asked_reads
        assert all(count == 1 for count in driver.outputs.values())
        assert sum(driver.outputs.values()) == driver.texts


STEPS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(["send", "cancel", "say", "say", "read", "finish", "moved", "step", "step", "answer", "lose"]),
        st.integers(1, 3),
        st.booleans(),
    ),
    max_size=60,
)


@given(STEPS, st.booleans())
def test_two_cores_over_one_log_lose_nothing_and_do_nothing_twice(
    steps: list[tuple[int, str, int, bool]], conflict_batches: bool
) -> None:
    """Whatever is asked when, whoever is first, and whichever reply is lost."""
    store = ListStore()
    store.conflict_batches = conflict_batches
    drivers = [Driver(store, "n1"), Driver(store, "n2")]
    for number, (which, what, run, flag) in enumerate(steps):
        driver = drivers[which]
        match what:
            case "send":
                driver.send(f"r{number}" if flag else f"r{run}.{which}.{number}")
            case "cancel":
                runs = [*driver.core.state.runs]
                driver.ask("cancel", f"k{number}", runId=runs[run % len(runs)] if runs else "none")
            case "say" | "finish":
                workers = [*driver.here.working]
                if workers and what == "say":
                    driver.say(workers[run % len(workers)], "text" if flag else "reasoning")
                elif workers:
                    driver.finish(workers[run % len(workers)])
            case "read":
                driver.read()
            case "moved":
                driver.core.moved()
            case "step" if driver.question is None:
                driver.next()
            case "answer" | "lose" if driver.question is not None:
                driver.answer(lost=what == "lose")
            case _:
                """Nothing to be driven."""
    for driver in [*drivers, *drivers]:
        driver.core.moved()
        driver.settle()
    check(store, *drivers)
    assert {driver.core.head for driver in drivers} == {store.head}


# The stages


def _answer(core: Core, stage: Stage) -> None:
    head = Head("e1", 0, "")
    match stage:
        case Stage.OPENING:
            core.opened(Log(head, None, ()), SessionState("e1"))
        case Stage.LOOKING:
            core.looked(Found())
        case Stage.APPENDING:
            core.appended(Conflict(head))
        case Stage.CHECKING:
            core.checked(None)
        case Stage.CATCHING_UP:
            core.caught_up(Tail(head, 0, ()))
        case _:
            core.renumbered()


ASKED = [stage for stage in Stage if stage is not Stage.IDLE]


@pytest.mark.parametrize("stage", list(Stage), ids=[stage.name for stage in Stage])
@pytest.mark.parametrize("answer", ASKED, ids=[stage.name for stage in ASKED])
def test_only_what_was_asked_is_answered(stage: Stage, answer: Stage) -> None:
    """An answer to another question is a defect of the driver, and changes nothing."""
    driver = Driver(ListStore())
    driver.core.stage = stage
    if stage is not answer:
        with pytest.raises(AssertionError, match=f"the session is {stage.value}, and not {answer.value}"):
            _answer(driver.core, answer)
        assert driver.core.stage is stage


def test_nothing_is_asked_while_a_question_waits() -> None:
    """There is one question at a time."""
    driver = Driver(ListStore(), open_it=False)
    assert isinstance(driver.next(), Open)
    with pytest.raises(AssertionError, match="the session is opening"):
        driver.core.next(NOW, 0.0)


# Appends whose outcome is not known


@pytest.mark.parametrize("built_upon", [False, True])
@pytest.mark.parametrize("conflict_batches", [False, True])
@pytest.mark.parametrize("renumbered", [False, True])
def test_a_batch_whose_reply_was_lost_is_found(*, built_upon: bool, conflict_batches: bool, renumbered: bool) -> None:
    """Others have appended behind it, or begun a new epoch: what is in it is not decided again."""
    store = ListStore()
    store.conflict_batches = conflict_batches
    one, two = Driver(store, "n1"), Driver(store, "n2")
    one.send("r1")
    one.settle()
    text = one.say("r1")
    one.next()
    one.answer(lost=True)
    two.core.moved()
    two.settle()
    if built_upon:
        two.send("r2")
        two.settle()
    if renumbered:
        store.epoch, store.start = "e9", store.head.seq + 5
    one.settle()
    check(store, one, two)
    assert one.outputs[text or ""] == 1
    assert one.core.head == store.head


@pytest.mark.parametrize("renumbered", [False, True])
def test_a_run_whose_start_is_found_is_worked_on(*, renumbered: bool) -> None:
    """Its reply was lost: it is told once, and its agent is called once."""
    store = ListStore()
    one, two = Driver(store, "n1"), Driver(store, "n2")
    told = one.send("r1")
    one.next()
    one.answer(lost=True)
    two.core.moved()
    two.send("r2")
    two.settle()
    if renumbered:
        store.epoch, store.start = "e9", store.head.seq + 5
    one.settle()
    assert [reply["outcome"] for reply in told] == ["started"]
    starts = [effect for landed in one.landed for effect in landed.effects if isinstance(effect, Start)]
    assert [start.run.run_id for start in starts] == ["r1"]
    assert starts[0].run is one.core.state.runs["r1"]
    check(store, one, two)


def test_a_command_is_decided_again_behind_what_was_missed() -> None:
    """The run was cancelled elsewhere meanwhile: a stop of it has nothing left to do."""
    store = ListStore()
    one, two = Driver(store, "n1"), Driver(store, "n2")
    one.send("r1")
    one.settle()
    two.core.moved()
    two.settle()
    told = one.ask("cancel", "k1", runId="r1")
    assert isinstance(one.next(), Append)
    two.ask("cancel", "k2", runId="r1")
    two.settle()
    one.settle()
    assert told[0]["outcome"] == "already_ended"
    check(store, one, two)


def test_a_batch_that_was_lost_with_the_store_is_decided_again() -> None:
    """It was accepted, and rolled back before anybody knew: it goes into a new epoch, once."""
    store = ListStore()
    one = Driver(store)
    one.send("r1")
    one.settle()
    saved = list(store.batches)
    told = one.send("r2")
    one.next()
    one.answer(lost=True)
    store.batches = saved[:-1]
    one.settle()
    assert len(told) == 1
    assert store.epoch != "e1"
    assert [landed.reset for landed in one.landed if landed.opened] == [None, True]
    assert list(one.core.state.runs) == ["r2"]
    check(store, one)


@pytest.mark.parametrize("conflict_batches", [False, True])
def test_a_log_that_was_rolled_back_and_written_on_is_another_one(*, conflict_batches: bool) -> None:
    """Its seq may be the same: what this node has folded is gone, and readers are reset into a new epoch."""
    store = ListStore()
    store.conflict_batches = conflict_batches
    one = Driver(store)
    one.send("r1")
    one.settle()
    store.batches = []
    two = Driver(store, "n2")
    two.send("r2")
    two.settle()
    assert one.core.head.seq == two.core.head.seq
    one.send("r3")
    one.settle()
    assert store.epoch not in ("e1", "e9")
    assert one.landed[-2].reset or one.landed[-1].reset
    assert sorted(one.core.state.runs) == ["r2", "r3"]
    two.core.moved()
    two.settle()
    assert two.core.head == store.head


# What others were heard to append


def _foreign(store: ListStore, two: Driver, run_id: str) -> tuple[Head, Head, Batch]:
    before = store.head
    two.send(run_id)
    two.settle()
    return before, store.head, store.batches[-1]


def test_a_batch_exactly_behind_the_head_is_folded_without_asking() -> None:
    """And whoever reads with it is told behind it."""
    store = ListStore()
    one, two = Driver(store, "n1"), Driver(store, "n2")
    one.core.heard(*_foreign(store, two, "r1"))
    step = one.next()
    assert isinstance(step, Landed)
    assert one.core.head == store.head
    assert [event["type"] for event in step.events] == ["message", "run.started"]
    assert one.next() is None


def test_a_stale_batch_is_let_go_and_one_out_of_order_is_asked_for() -> None:
    """What is in the state already needs nothing; a gap before it does."""
    store = ListStore()
    one, two = Driver(store, "n1"), Driver(store, "n2")
    first, second = _foreign(store, two, "r1"), _foreign(store, two, "r2")
    one.core.heard(*second)
    assert isinstance(one.next(), Check)
    one.settle()
    assert one.core.head == store.head
    one.core.heard(*first)
    assert one.next() is None


def test_more_than_can_wait_is_asked_for() -> None:
    """A session that is busy does not collect what others write without a bound."""
    store = ListStore()
    one, two = Driver(store, "n1"), Driver(store, "n2")
    told = one.send("mine")
    assert isinstance(one.next(), Append)
    for number in range(65):
        one.core.heard(*_foreign(store, two, f"r{number}"))
    assert one.core._heard == []  # pyright: ignore[reportPrivateUsage]
    one.settle()
    assert len(told) == 1
    check(store, one, two)
    assert one.core.head == store.head


def test_what_is_heard_during_a_flight_is_folded_once() -> None:
    """The conflict brings the same batch: it is stale when its turn comes."""
    store = ListStore()
    one, two = Driver(store, "n1"), Driver(store, "n2")
    told = one.send("mine")
    one.next()
    one.core.heard(*_foreign(store, two, "r1"))
    one.settle()
    assert told[0]["outcome"] == "queued"
    check(store, one, two)


# Answers that add nothing, and reads


@pytest.mark.parametrize("shared", [False, True])
def test_an_answer_that_adds_nothing_asks_for_the_head_where_others_write(*, shared: bool) -> None:
    """Where nobody else does, the head that is known is the head."""
    one = Driver(ListStore(), shared=shared)
    told = one.ask("cancel", "k1", runId="nobody")
    step = one.next()
    assert isinstance(step, Check if shared else Landed)
    one.settle()
    assert told[0]["outcome"] == "unknown_run"


def test_a_read_is_told_behind_its_batch() -> None:
    """Not before what was taken with it is in the log."""
    one = Driver(ListStore())
    one.send("r1")
    one.read()
    assert isinstance(one.next(), Append)
    assert one.reads == []
    one.answer()
    assert one.reads == [None]


def test_what_agents_say_is_held_and_commands_are_not() -> None:
    """Until its time is over, or the session closes."""
    one = Driver(ListStore())
    one.send("r1")
    one.settle()
    one.core.held_until = 1.0
    one.say("r1")
    assert one.next() is None
    told = one.send("r2")
    one.settle()
    assert told
    assert one.core.mailbox.pending
    one.core.closing = True
    assert isinstance(one.next(), Append)
    one.settle()
    check(one.store, one)


# What cannot be decided


def test_a_command_that_cannot_be_decided_fails_nobody_else() -> None:
    """Its sender is told, and the others of its batch are decided as if it had not come."""
    one = Driver(ListStore())
    bad: list[Any] = []
    nonsense: Any = object()
    first = one.send("r1")
    one.core.mailbox.command(Ask("ana", "phone", nonsense), 0.0, bad.append)
    second = one.send("r2")
    one.read()
    one.settle()
    assert [error.code for error in bad] == ["internal"]
    assert [told[0]["outcome"] for told in (first, second)] == ["started", "queued"]
    assert len(one.failures) == 1
    check(one.store, one)


@pytest.mark.parametrize("kind", ["text", "data"])
def test_a_chunk_that_cannot_be_encoded_ends_its_run_only(kind: str) -> None:
    """Its run has failed, and what the agent of another run has said is in the log."""
    one = Driver(ListStore())
    one.send("r1")
    one.ask("send", "r2", text="go", whenBusy="alongside")
    one.settle()
    fields: dict[str, Any] = {"name": "n", "value": object()} if kind == "data" else {"oops": object()}
    one.say("r1", kind, **fields)
    one.say("r2")
    one.settle()
    check(one.store, one)
    events = [record.event for batch in one.store.batches for record in decode_batch(batch.payload)]
    ends: list[Any] = [event for event in events if event["type"] == "run.ended"]
    assert [(end["runId"], end["reason"]) for end in ends] == [("r1", "failed")]
    assert [event["runId"] for event in events if event["type"] == "run.chunk"] == ["r2"]
    assert [type(work) for work, _ in one.failures] == [Chunk]


def test_what_is_owed_changes_with_the_lifecycle_only() -> None:
    """Stores compare it by identity: text hands in the object of before."""
    one = Driver(ListStore())
    one.send("r1")
    step = one.next()
    assert isinstance(step, Append)
    owed: list[Any] = [step.owed]
    one.settle()
    for _ in range(3):
        one.say("r1")
        step = one.next()
        assert isinstance(step, Append)
        owed.append(step.owed)
        one.answer()
    assert [it is owed[0] for it in owed] == [True] * 4
    assert owed[0].owners == {"n1"}
    one.finish("r1")
    step = one.next()
    assert isinstance(step, Append)
    assert step.owed is not owed[0]
    assert step.owed.owners == frozenset()
