"""Each rule that writers obey is needed: with it the schedule holds, and without it a promise is seen to break.

The schedules are counterexamples that the search finds when a rule is switched off, cut down to what a person reads.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from holdfast.server.registry import TABLE, RunPhase, owned, upkeep
from holdfast.server.registry.draft import Draft
from holdfast.server.registry.state import RunState
from holdfast.server.registry.work import Owner
from tests.support.log_writer import Rules
from tests.support.two_writers import SharedLog, Step, replay

RUN: Sequence[Step] = [("send", "a", "ana/phone", "r1"), ("work", "a")]
"""A run works on the first node."""


def breaks(steps: Sequence[Step], promise: str, rules: Rules) -> None:
    """The schedule keeps every promise under all rules, and breaks this one under `rules`."""
    replay(steps)
    with pytest.raises(AssertionError, match=promise):
        replay(steps, rules)


def test_ownership(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that lost its run to another one adds nothing: if ownership did not count, its text would get in."""
    steps = [
        ("ask", "a", "ana/phone", {"type": "send", "id": "r1", "text": "go", "agent": "phoenix"}),
        ("work", "a"),
        ("produce", "a", "r1"),
        ("lapse", "a"),
        ("sweep", "b"),
        ("work", "b"),
        ("produce", "b", "r1"),
        ("work", "b"),
        ("work", "a"),
    ]
    world = replay(steps)
    assert [start["node"] for start in world.model.runs["r1"].starts] == ["a", "b"]

    def anybody(run: RunState, owner: Owner) -> bool:
        return True

    monkeypatch.setattr(owned, "owns", anybody)
    with pytest.raises(AssertionError, match="never produced"):
        replay(steps)


def test_unknown_outcome() -> None:
    """An append whose reply was lost is repeated unchanged: decided anew, its text would be in the log twice."""
    steps = [
        *RUN,
        ("produce", "a", "r1"),
        ("decide", "a"),
        ("append_unheard", "a"),
        ("produce", "a", "r1"),
        ("work", "a"),
    ]
    breaks(steps, "each text once", Rules(repeat_unknown=False))


def test_unknown_outcome_of_a_send() -> None:
    """The same for a send that another writer has built upon: its reply is `started`, and it starts once."""
    steps = [
        ("send", "a", "ana/phone", "r1"),
        ("decide", "a"),
        ("append_unheard", "a"),
        ("cancel", "b", "bo/tablet", "k1", "r1"),
        ("work", "b"),
        ("work", "a"),
    ]
    world = replay(steps)
    replies = {replied.ask.command.id: replied.reply for replied in world.replies}
    assert replies["r1"] == {"type": "ack", "id": "r1", "outcome": "started", "runId": "r1", "seq": 2}
    assert replies["k1"] == {"type": "ack", "id": "k1", "outcome": "cancelled", "runId": "r1", "seq": 3}


def test_replies_that_add_nothing() -> None:
    """They are decided on the store's head: a stale writer would call a run unknown that goes on elsewhere."""
    steps = [*RUN, ("cancel", "b", "bo/tablet", "k1", "r1"), ("work", "b")]
    breaks(steps, "r1 was known when it was asked for", Rules(read_head=False))


def test_queues(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that the writer of the last terminal could not start is claimed later: otherwise it would wait for ever."""
    steps = [
        *RUN,
        ("send", "a", "ana/phone", "r2"),
        ("work", "a"),
        ("drain", "a"),
        ("finish", "a", "r1"),
        ("work", "a"),
    ]
    replay(steps)

    class NoClaim(Draft):
        def promote(self) -> None:
            """Leaves the queue to others."""

    monkeypatch.setattr(upkeep, "Draft", NoClaim)
    with pytest.raises(AssertionError, match=r"queued runs \['r2'\] are left without a claimant"):
        replay(steps)


def test_leases() -> None:
    """A sweep that lost a race looks at the leases again: otherwise it would end the run of a node that came back."""
    steps = [
        *RUN,
        ("lapse", "a"),
        ("sweep", "b"),
        ("decide", "b"),
        ("renew", "a"),
        ("produce", "a", "r1"),
        ("work", "a"),
        ("append", "b"),
        ("work", "b"),
    ]
    breaks(steps, "a held its lease all the time, and r1 was taken from it", Rules(read_leases_again=False))


def test_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped run stays until its work has stopped: closed at once, nobody would ever hear whether it has."""
    steps = [*RUN, ("cancel", "b", "bo/tablet", "k1", "r1"), ("work", "b"), ("kill", "a")]
    replay(steps)
    running = {**TABLE[RunPhase.RUNNING], "run.ended:cancelled": RunPhase.CLOSED}
    monkeypatch.setitem(TABLE, RunPhase.RUNNING, running)
    with pytest.raises(AssertionError, match=r"run r1 is left without its run\.settled"):
        replay(steps)


LOST: Sequence[Step] = [
    *RUN,
    ("attach", "one", "a"),
    ("produce", "a", "r1"),
    ("work", "a"),
    ("lose", 1),
]
"""A reader has seen an event that the store has lost."""


def test_new_epoch() -> None:
    """A store that lost events gets a new epoch: without one, two readers hold different events for one seq."""
    steps = [*LOST, ("cancel", "b", "bo/tablet", "k1", "r1"), ("work", "b"), ("attach", "two", "b")]
    breaks(steps, "every seq once|names the same event for everyone", Rules(open_epoch=False))
    assert replay(steps).log.epoch == "e2"


def test_new_epoch_resets_every_reader() -> None:
    """A writer that had not seen what was lost takes its readers into the new epoch too, and nobody keeps a ghost."""
    steps = [*LOST, ("attach", "two", "b"), ("refresh", "a"), ("refresh", "b")]
    world = SharedLog()
    for step in steps:
        world.take(step)
    assert {name: reader.epoch for name, (reader, _) in world.readers.items()} == {"one": "e2", "two": "e2"}
    world.end()


def test_a_store_that_lost_events_and_was_overtaken() -> None:
    """An append names the batch it goes onto: by its number alone it would go onto a history it does not know."""
    steps = [
        *LOST,
        ("ask", "b", "bo/tablet", {"type": "cancel", "id": "k1", "runId": "r9", "ifUnknown": "prevent"}),
        ("work", "b"),
        ("produce", "a", "r1"),
        ("decide", "a"),
        ("append", "a"),
    ]
    breaks(steps, "names the same event for everyone", Rules(compare_batch=False))
