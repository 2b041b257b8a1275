"""Two writers, their agents, and readers over one log: every step is checked against the model as it is taken.

A schedule is a list of steps, so that a counterexample is a readable test:

    replay([("send", "a", "ana/phone", "r1"), ("work", "a"), ("produce", "a", "r1"), ("kill", "a")])

Writers are named by their node; `kill` ends one and starts another process in its place, named with one prime more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from holdfast.protocol.commands import Answer, Cancel, Send, Steer, Withdraw, parse_command
from holdfast.protocol.errors import CommandError
from holdfast.server.registry import (
    Ask,
    Chunk,
    Finish,
    OpenRequest,
    RetractRequest,
    RunPhase,
    SessionState,
    Settle,
    Stop,
    Sweep,
    TakeSteers,
    Upkeep,
)
from tests.support.client_model import Reader, Replied, check_readers, check_replies
from tests.support.log_model import Author, LogModel, require
from tests.support.log_writer import AGENTS, ALL_RULES, Agent, Rules, Writer, author_of
from tests.support.memory_log import MemoryLog, through_json

Step = tuple[Any, ...]
_ROUNDS: Final = 60
"""In how many rounds everything must have ended once everybody wants it to."""


class SharedLog:
    """All there is. Each public method is a step."""

    def __init__(self, rules: Rules = ALL_RULES) -> None:
        self.rules = rules
        self.log = MemoryLog()
        self.log.live = {"a", "b"}
        # The second node lacks an agent, so that there are runs which only the first one can take.
        self.writers = {
            "a": Writer("a", self.log, rules, AGENTS),
            "b": Writer("b", self.log, rules, {"phoenix": AGENTS["phoenix"]}),
        }
        self.produced: dict[Author, list[str]] = {}
        self.alongside: set[str] = set()
        self.model = LogModel(self.produced, self.alongside)
        self.lost_texts: set[str] = set()
        self.readers: dict[str, tuple[Reader, str | None]] = {}
        self.unobserved_since: int | None = self.log.now
        self.asks: list[Ask] = []
        """Every command that was ever sent."""
        self.replies: list[Replied] = []
        self.steps: list[Step] = []
        self._checked = 0

    def take(self, step: Step) -> None:
        """Takes one step of a schedule, and looks at what it did to the log."""
        self.steps.append(step)
        getattr(self, step[0])(*step[1:])
        self._look()

    def _look(self) -> None:
        for batch in self.log.batches[self._checked :]:
            for record in batch.records:
                self.model.add(batch.epoch, record.event)
        self._checked = len(self.log.batches)
        for writer in self.writers.values():
            for item, epoch, reply in writer.told:
                if isinstance(item.work, Ask):
                    self.replies.append(Replied(item.work, item.arrived, epoch, reply))
            writer.told = []
            for event in writer.fresh:
                for reader, name in self.readers.values():
                    if name == writer.name:
                        reader.receive(event)
            writer.fresh = []

    # What clients do

    def ask(self, node: str, client: str, fields: Mapping[str, Any]) -> None:
        """A client (`principal/device`) sends a command to a node."""
        command = parse_command(fields)
        principal, device = client.split("/")
        assert isinstance(command, (Send, Cancel, Steer, Withdraw, Answer)), "a command that may add events"
        self._ask(node, Ask(principal, device, command))

    def _ask(self, node: str, ask: Ask) -> None:
        self.asks.append(ask)
        if isinstance(ask.command, Send) and ask.command.when_busy == "alongside":
            self.alongside.add(ask.command.run)
        self.writers[node].bring(ask)

    def again(self, node: str, number: int) -> None:
        """A client sends a command once more, to any node."""
        if self.asks:
            self._ask(node, self.asks[number % len(self.asks)])

    def send(self, node: str, client: str, run_id: str, busy: str = "queue", **fields: Any) -> None:
        """A message whose run has the command's id."""
        self.ask(node, client, {"type": "send", "id": run_id, "text": f"do {run_id}", "whenBusy": busy, **fields})

    def cancel(self, node: str, client: str, command_id: str, run_id: str, **fields: Any) -> None:
        """A stop."""
        self.ask(node, client, {"type": "cancel", "id": command_id, "runId": run_id, **fields})

    def steer(self, node: str, client: str, steer_id: str, run_id: str | None, **fields: Any) -> None:
        """A steer of a run, or of the main one."""
        target = {} if run_id is None else {"runId": run_id}
        self.ask(node, client, {"type": "steer", "id": steer_id, "text": f"rather {steer_id}", **target, **fields})

    # What agents do

    def _agent(self, node: str, run_id: str) -> Agent | None:
        agent = self.writers[node].running.get(run_id)
        return None if agent is None or agent.finishing else agent

    def produce(self, node: str, run_id: str, kind: str = "text") -> None:
        """The agent of a run yields a text that nothing else ever yields; one that is being stopped may try."""
        agent = self._agent(node, run_id)
        if agent is not None:
            texts = self.produced.setdefault(author_of(agent.owner), [])
            text = f"⟨{node}·{run_id}·{agent.owner.attempt}·{len(texts)}😀⟩"
            texts.append(text)
            self.writers[node].bring(Chunk.of(agent.owner, kind, {"delta": text}))

    def call_tool(self, node: str, run_id: str) -> None:
        """The agent does something that no cut undoes."""
        agent = self._agent(node, run_id)
        if agent is not None:
            self.writers[node].bring(Chunk.of(agent.owner, "data", {"name": "step", "value": node}))

    def request(self, node: str, run_id: str, expires_in: int | None = None) -> None:
        """The agent asks a person; its requests are named by run, attempt and number."""
        agent = self._agent(node, run_id)
        if agent is not None and not agent.stopping:
            agent.asked += 1
            expires: Any = {} if expires_in is None else {"expiresAt": self.log.now + expires_in}
            request_id = f"{run_id}.{agent.owner.attempt}.{agent.asked}"
            request: Any = {"id": request_id, "kind": "input", "prompt": "?", **expires}
            self.writers[node].bring(OpenRequest(agent.owner, request))

    def retract(self, node: str, run_id: str, number: int = 1) -> None:
        """The agent no longer waits for one of its requests."""
        agent = self._agent(node, run_id)
        if agent is not None:
            self.writers[node].bring(RetractRequest(agent.owner, f"{run_id}.{agent.owner.attempt}.{number}"))

    def boundary(self, node: str, run_id: str) -> None:
        """The agent takes its steers."""
        agent = self._agent(node, run_id)
        if agent is not None:
            self.writers[node].bring(TakeSteers(agent.owner))

    def finish(self, node: str, run_id: str, reason: str = "completed", *, resume: bool = False) -> None:
        """The agent is done, for good but with `resume`."""
        agent = self._agent(node, run_id)
        if agent is not None and not agent.stopping:
            agent.finishing = True
            finished: Any = reason
            self.writers[node].bring(Finish(agent.owner, finished, resume_on_steer=resume))

    def finish_failed(self, node: str, run_id: str) -> None:
        """The agent raised."""
        self.finish(node, run_id, "failed")

    def finish_unless_steered(self, node: str, run_id: str) -> None:
        """The agent is done, and is called again where a steer was accepted meanwhile."""
        self.finish(node, run_id, resume=True)

    def settle(self, node: str, run_id: str, *, confirmed: bool = True) -> None:
        """The agent of a stopped run has really stopped."""
        agent = self.writers[node].running.get(run_id)
        if agent is not None and agent.stopping:
            self.writers[node].bring(Settle(agent.owner, 5, confirmed))

    # What writers do

    def decide(self, node: str) -> None:
        """Decides all that is pending; a pause until `append` is a slow node."""
        self.writers[node].decide(self.unobserved_since)

    def append(self, node: str, *, reply_lost: bool = False) -> None:
        """Sends what was decided."""
        writer = self.writers[node]
        flight = writer.flight
        count = len(self.log.batches)
        absent = set(self.log.absent_since_head)
        writer.append(reply_lost=reply_lost)
        if flight is not None and len(self.log.batches) > count:
            self._check_takeovers(writer.name, flight.records, absent)

    def append_unheard(self, node: str) -> None:
        """Sends what was decided; the reply is lost."""
        self.append(node, reply_lost=True)

    def _check_takeovers(self, node: str, records: Iterable[Any], absent: set[str]) -> None:
        for record in records:
            event = record.event
            story = self.model.runs.get(event.get("runId", ""))
            lost = event["type"] == "run.ended" and event["reason"] == "lost"
            again = event["type"] == "run.started" and event["attempt"] > 1
            if story is not None and (lost or again):
                owner = story.author.node
                gone = owner == node or owner in absent or owner not in self.log.live
                require(gone, f"{owner} held its lease all the time, and {event['runId']} was taken from it")

    def work(self, node: str) -> None:
        """Decides and appends until nothing is left to do: a node that nothing disturbs."""
        writer = self.writers[node]
        for _ in range(8):
            self.decide(node)
            self.append(node)
            self._look()
            if writer.flight is None and not writer.pending:
                return
        raise AssertionError("a writer that is alone gets its work done")

    def refresh(self, node: str) -> None:
        """A wake-up from the store."""
        self.writers[node].refresh()

    def upkeep(self, node: str) -> None:
        """Time has passed, as far as the node knows."""
        self.writers[node].bring(Upkeep())

    def sweep(self, node: str) -> None:
        """The node looks after what dead ones left."""
        self.writers[node].bring(Sweep())

    def shut(self, node: str, run_id: str) -> None:
        """A draining node ends what it did not see finish."""
        self.writers[node].bring(Stop(run_id, "shutdown"))

    def drain(self, node: str) -> None:
        """The node takes no new runs."""
        self.writers[node].accepting = False

    def accept(self, node: str) -> None:
        """The node takes new runs again."""
        self.writers[node].accepting = True

    def compact(self, node: str) -> None:
        """The node writes a checkpoint, if nothing is on its way; recent events stay for replay."""
        self.writers[node].compact(replay_window_ms=3000)

    def compact_all(self, node: str) -> None:
        """The same, with nothing left for replay but what came since the checkpoint before."""
        self.writers[node].compact(replay_window_ms=0)

    # What happens to them

    def tick(self, milliseconds: int) -> None:
        """Time passes."""
        self.log.now += milliseconds

    def lapse(self, node: str) -> None:
        """The node does not renew its lease in time; it does not know yet."""
        self.log.live.discard(self.writers[node].name)
        self.log.absent_since_head.add(self.writers[node].name)

    def renew(self, node: str) -> None:
        """The node has its lease again."""
        self.log.live.add(self.writers[node].name)

    def kill(self, node: str) -> None:
        """The process dies with all it had in hand; another one starts."""
        old = self.writers[node]
        self.lapse(node)
        for name, (reader, attached) in list(self.readers.items()):
            if attached == old.name:
                self.detach(name)
                self.readers[name] = (reader, None)
        self.writers[node] = Writer(f"{old.name}'", self.log, self.rules, old.agents)
        self.renew(node)

    def lose(self, batches: int) -> None:
        """The store forgets what it had acknowledged last."""
        count = len(self.log.batches)
        self.log.lose(batches)
        if len(self.log.batches) < count:
            self.model = LogModel(self.produced, self.alongside)
            # Gone with it, or refused because of what is now lost.
            self.lost_texts |= {text for texts in self.produced.values() for text in texts}
            self.model.lost_texts = self.lost_texts
            self._checked = 0
            # A reply to it is announced as lost; a reply on top of it was true of a log that is gone.
            lost = {seq for _, seq in self.log.lost}
            self.replies = [
                replied
                for replied in self.replies
                if replied.head[1] not in lost
                and (isinstance(replied.reply, CommandError) or replied.reply.get("seq") not in lost)
            ]
            # A head that is lost says nothing about what was known: another log may come as far in the same epoch.
            for writer in self.writers.values():
                for item in [*writer.pending, *(writer.flight.items if writer.flight else [])]:
                    if item.arrived[1] in lost:
                        item.arrived = ("", 0)

    # Readers

    def attach(self, name: str, node: str, back: int = 0) -> None:
        """A reader connects to a node, with its cursor or with an older one that it had kept."""
        writer = self.writers[node]
        if writer.flight is not None:
            return  # joins happen between commits
        writer.refresh()
        self._look()
        reader, _ = self.readers.get(name, (Reader(), None))
        if back:
            reader.rewind(back)
        resume = self._resume(reader.cursor)
        reader.receive({"type": "welcome", "epoch": self.log.epoch, "resume": resume})
        if resume == "tail":
            for batch in self.log.batches:
                for record in batch.records:
                    if batch.epoch == reader.epoch and record.event["seq"] > reader.seq:
                        reader.receive(through_json(record.event))
        else:
            reader.receive(self.log.snapshot(writer.state, reset=resume == "reset"))
        reader.receive({"type": "caughtUp", "seq": self.log.seq})
        self.readers[name] = (reader, writer.name)
        self.unobserved_since = None

    def _resume(self, cursor: Mapping[str, Any] | None) -> str:
        if cursor is None:
            return "snapshot"
        seq: int = cursor["seq"]
        if cursor["epoch"] != self.log.epoch or seq > self.log.seq or seq < self.log.floor:
            return "reset"
        times = {0: None} | {
            record.event["seq"]: record.event["at"]
            for batch in self.log.batches
            if batch.epoch == self.log.epoch and batch.last > self.log.floor
            for record in batch.records
        }
        return "tail" if seq in times and times[seq] == cursor.get("at") else "reset"

    def detach(self, name: str) -> None:
        """A reader's connection is gone. No run hears of it."""
        if name in self.readers:
            self.readers[name] = (self.readers[name][0], None)
            if all(node is None for _, node in self.readers.values()):
                self.unobserved_since = self.log.now

    # The end

    def end(self) -> None:
        """Everybody wants to be done: all ends, and what everyone holds then agrees."""
        for node, writer in self.writers.items():
            writer.accepting = True
            self.renew(node)
        for _ in range(_ROUNDS):
            for node, writer in self.writers.items():
                self.append(node)
                self._look()
                writer.refresh()
                writer.bring(Upkeep())
                writer.bring(Sweep())
                for run_id, agent in list(writer.running.items()):
                    if agent.stopping:
                        self.settle(node, run_id)
                    else:
                        self.finish(node, run_id)
                self.work(node)
            if self._quiet():
                break
        self._look()
        for writer in self.writers.values():
            require(not writer.state.queue, f"queued runs {writer.state.queue} are left without a claimant")
        self.model.finish()
        for writer in self.writers.values():
            require(not _unfinished(writer.state), "nothing is unfinished when everything has ended")
            require(not writer.running, f"agents {list(writer.running)} are left behind")
        for name, (_, attached) in list(self.readers.items()):
            node = next((node for node, writer in self.writers.items() if writer.name == attached), "a")
            self.writers[node].refresh()
            self._look()
            if attached is None:
                self.attach(name, node)
        self.attach("newcomer", "b")
        check_readers([reader for reader, _ in self.readers.values()], self.model)
        check_replies(self.replies, self.model)

    def _quiet(self) -> bool:
        return not any(
            _unfinished(writer.state) or writer.pending or writer.flight or writer.base != self.log.head
            for writer in self.writers.values()
        )


def replay(steps: Iterable[Step], rules: Rules = ALL_RULES) -> SharedLog:
    """The world after a schedule, with everything ended and checked."""
    world = SharedLog(rules)
    for step in steps:
        world.take(step)
    world.end()
    return world


def _unfinished(state: SessionState) -> bool:
    return any(run.phase is not RunPhase.CLOSED for run in state.runs.values())
