"""The one way into a session: what comes first, what is held, and that nothing leaves it without being told."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from holdfast.protocol.errors import CommandError, HoldfastError
from holdfast.server.registry import Ask, Owner, Sweep, Upkeep
from holdfast.server.session.mailbox import Mailbox
from tests.support.pure_session import command

LATE = CommandError("unavailable", "late")
OVER = CommandError("unavailable", "over")


class FakeWorker:
    """A worker with one piece of output."""

    def __init__(self, run_id: str) -> None:
        self.owner = Owner(run_id, "n1", 1)
        self.output: list[Any] = [f"of {run_id}"]

    def take(self) -> list[Any]:
        """All that waits."""
        taken, self.output = self.output, []
        return taken


def ask(command_id: str = "r1") -> Ask:
    """A command."""
    return Ask("ana", "phone", command("send", command_id, text="go"))


def ready(mailbox: Mailbox, worker: Any) -> None:
    """The worker has output."""
    mailbox.ready(worker)


def test_commands_come_first_then_the_servers_own_then_what_agents_say() -> None:
    """Whatever came when; a worker that says so twice is taken once."""
    mailbox = Mailbox()
    worker = FakeWorker("r1")
    reads: list[Any] = []
    ready(mailbox, worker)
    mailbox.chore(Sweep(), 1.0)
    mailbox.read(reads.append)
    mailbox.command(ask("a"), 2.0, reads.append)
    mailbox.chore(Upkeep(), 3.0)
    mailbox.command(ask("b"), 4.0, reads.append)
    ready(mailbox, worker)
    assert (mailbox.commands, mailbox.reads) == (4, 1)
    mail = mailbox.take(held=False)
    assert [item.work for item in mail.items] == [ask("a"), ask("b"), Sweep(), Upkeep()]
    taken: list[Any] = [outputs for _, outputs in mail.taken]
    assert taken == [["of r1"]]
    assert len(mail.reads) == 1
    assert (mailbox.commands, mailbox.reads) == (4, 1)
    assert mailbox.pending
    mailbox.done()
    assert [bool(mailbox), mailbox.pending, mailbox.busy] == [False] * 3
    assert reads == []


def test_what_agents_say_waits_while_it_is_held() -> None:
    """It stays with its worker, and is taken later."""
    mailbox = Mailbox()
    worker = FakeWorker("r1")
    ready(mailbox, worker)
    assert not mailbox.take(held=True)
    assert worker.output == ["of r1"]
    assert mailbox.pending
    assert mailbox.take(held=False).taken


def test_a_read_that_was_given_up_is_not_told() -> None:
    """Whoever wanted to read has gone; forgetting it twice is harmless."""
    mailbox = Mailbox()
    told: list[HoldfastError | None] = []
    read = told.append
    mailbox.read(read)
    assert mailbox.busy
    assert not mailbox.pending
    mailbox.forget(read)
    mailbox.forget(read)
    mailbox.refuse_all(OVER, OVER)
    assert told == []


def test_everybody_is_told_when_it_is_over() -> None:
    """Those of the batch and those behind it, commands and reads, each once."""
    mailbox = Mailbox()
    told: dict[str, list[Any]] = {name: [] for name in ("a", "b", "read a", "read b")}
    failed = HoldfastError("over")
    mailbox.command(ask("a"), 1.0, told["a"].append)
    mailbox.read(told["read a"].append)
    mailbox.take(held=False)
    mailbox.command(ask("b"), 2.0, told["b"].append)
    mailbox.chore(Sweep(), 2.0)
    mailbox.read(told["read b"].append)
    ready(mailbox, FakeWorker("r1"))
    for _ in range(2):
        mailbox.refuse_all(OVER, failed)
    assert told == {"a": [OVER], "b": [OVER], "read a": [failed], "read b": [failed]}
    assert not mailbox
    assert mailbox.commands == mailbox.reads == 0


@pytest.mark.parametrize("halted", [False, True])
def test_a_command_that_was_refused_late_is_decided_only_where_it_has_stopped_an_agent(*, halted: bool) -> None:
    """Younger ones wait on, and what is in the batch stays there: it may be in the log."""
    mailbox = Mailbox()
    told: dict[str, list[Any]] = {name: [] for name in "abc"}
    mailbox.command(ask("a"), 1.0, told["a"].append)
    mailbox.take(held=False)
    mailbox.command(ask("b"), 2.0, told["b"].append, halted=halted)
    mailbox.command(ask("c"), 3.0, told["c"].append)
    assert mailbox.oldest_waiting() == 1.0
    mailbox.refuse_older(2.0, LATE)
    assert told == {"a": [LATE], "b": [LATE], "c": []}
    assert mailbox.oldest_waiting() == 3.0
    assert [item.work for item in mailbox.batch.items] == [ask("a")]
    mailbox.done()
    left = [item.work for item in mailbox.take(held=False).items]
    assert left == ([ask("b"), ask("c")] if halted else [ask("c")])


def test_a_reply_that_raises_keeps_nobody_else_from_theirs() -> None:
    """It is one connection's, and logged."""
    mailbox = Mailbox()
    told: list[Any] = []

    def broken(outcome: object) -> None:
        raise RuntimeError(outcome)

    mailbox.command(ask("a"), 1.0, broken)
    mailbox.command(ask("b"), 1.0, told.append)
    with capture_logs() as logs:
        mailbox.refuse_all(OVER, OVER)
    assert told == [OVER]
    assert [entry["event"] for entry in logs] == ["replying failed"]
