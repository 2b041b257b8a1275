"""Nodes that have a session open hear what the others append to it, and nobody hears of anything else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from holdfast.server.store import WAKE_UP_BYTES, Batch, Conflict, Head, LiveNode, Store
from tests.conformance.harness import OWED, START, Writer

PATIENCE_SECONDS = 10
Heard = tuple[str, Head, Head, Batch | None]


class Ear:
    """What a node hears."""

    def __init__(self) -> None:
        self.heard_of: list[Heard] = []
        self._changed = asyncio.Event()

    def heard(self, session: str, before: Head, head: Head, batch: Batch | None) -> None:
        """See `Listener`."""
        self.heard_of.append((session, before, head, batch))
        self._changed.set()

    def gap(self) -> None:
        """See `Listener`."""

    async def until(self, head: Head) -> None:
        """Wait for the wake-up that tells of a head."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while head not in [told for _, _, told, _ in self.heard_of]:
                self._changed.clear()
                await self._changed.wait()


class Pair:
    """Two nodes that listen, and a writer on the first."""

    def __init__(self, one: Store, two: Store) -> None:
        self.one, self.two = one, two
        self.first, self.second = Ear(), Ear()
        self.writer = Writer(one, node="n1")
        self.end_first, self.end_second = one.listen("n1", self.first), two.listen("n2", self.second)

    async def last(self, store: Store, node: str, ear: Ear) -> None:
        """Returns when an ear has heard all that was appended before: it hears of one session more, which is last."""
        await store.open("last", "e", watcher=node)
        head = await store.head("last")
        assert head is not None
        batch = Batch(f"last {head.seq}", head.seq + 1, head.seq + 1, b"")
        await ear.until((await self.one.append("last", head, batch, node="n9", owed=OWED)).head)
        ear.heard_of = [told for told in ear.heard_of if told[0] != "last"]


@pytest.fixture
async def pair(shared: tuple[Store, Store]) -> AsyncIterator[Pair]:
    """Both have the session open."""
    pair = Pair(*shared)
    for store, node in zip(shared, ("n1", "n2"), strict=True):
        await store.start()
        await store.open("s", "e1", watcher=node)
    yield pair
    pair.end_first()
    pair.end_second()


async def test_who_watches_hears_the_batches_one_after_the_other(pair: Pair) -> None:
    """Each comes with the head it follows and the one it makes: so it can be folded without asking the store."""
    before, expected = START, list[Heard]()
    for number in range(5):
        batch = pair.writer.batch(f"b{number}", number + 1)
        head = (await pair.writer.append(f"b{number}", number + 1)).head
        expected.append(("s", before, head, batch))
        before = head
    await pair.second.until(before)
    assert pair.second.heard_of == expected


async def test_the_writer_hears_nothing_of_its_own(pair: Pair) -> None:
    """Its node knows what it has written, and hears the others'."""
    head = (await pair.writer.append("b1")).head
    batch = Batch("theirs", 2, 2, b"x")
    theirs = (await pair.two.append("s", head, batch, node="n2", owed=OWED)).head
    await pair.first.until(theirs)
    await pair.last(pair.two, "n2", pair.second)
    assert pair.first.heard_of == [("s", head, theirs, batch)]
    assert [told for _, _, told, _ in pair.second.heard_of] == [head]


async def test_nobody_is_woken_within_the_call(pair: Pair) -> None:
    """A listener can neither fail nor re-enter somebody's append."""
    request = pair.writer.request(pair.writer.batch("b1"))
    pair.one.append_many([request], lambda _, __: None)
    assert pair.second.heard_of == []
    await pair.second.until(Head("e1", 1, "b1"))


async def test_a_session_that_is_not_watched_is_not_heard_of(pair: Pair) -> None:
    """Nodes pay nothing for the sessions of others."""
    await pair.one.open("other", "e1", watcher="n1")
    await Writer(pair.one, "other").append("b1")
    await pair.last(pair.two, "n2", pair.second)
    assert pair.second.heard_of == []


async def test_who_has_stopped_watching_hears_no_more(pair: Pair) -> None:
    """Stopped twice, or for what was never watched, it is harmless."""
    await pair.writer.append("b1")
    await pair.two.unwatch("s", "n2")
    await pair.two.unwatch("s", "n2")
    await pair.two.unwatch("none", "n2")
    heard = list(pair.second.heard_of)
    await pair.writer.append("b2")
    await pair.last(pair.two, "n2", pair.second)
    assert pair.second.heard_of == heard
    assert len(heard) <= 1


async def test_every_look_at_the_heads_watches(pair: Pair) -> None:
    """Whatever the store has forgotten: who asks for the heads of its sessions is woken again; for those that are."""
    await pair.two.unwatch("s", "n2")
    assert await pair.two.heads(["none", "s"], watcher="n2") == [None, START]
    head = (await pair.writer.append("b1")).head
    await pair.second.until(head)
    assert await pair.two.head("none") is None


async def test_asking_without_a_watcher_watches_nothing(pair: Pair) -> None:
    """As tools do."""
    await pair.two.unwatch("s", "n2")
    await pair.two.heads(["s"])
    await pair.two.open("s", "e1")
    await pair.writer.append("b1")
    await pair.last(pair.two, "n2", pair.second)
    assert pair.second.heard_of == []


async def test_a_new_epoch_is_heard_of(pair: Pair) -> None:
    """Who folded the old epoch is told that there is a new one; there is no batch to fold."""
    head = (await pair.writer.append("b1")).head
    assert await pair.one.new_epoch("s", head, "e2", 7)
    after = Head("e2", 7, "b1")
    await pair.second.until(after)
    assert pair.second.heard_of[-1] == ("s", head, after, None)


async def test_a_lost_race_wakes_nobody(pair: Pair) -> None:
    """Nothing was added, so nothing is to be read; neither by a repeat of what is there."""
    batch = pair.writer.batch("b1")
    head = (await pair.writer.append("b1")).head
    lost = await pair.one.append("s", START, Batch("x", 1, 1, b""), node="n3", owed=OWED)
    assert isinstance(lost, Conflict)
    await pair.one.append("s", START, batch, node="n1", owed=OWED)
    await pair.last(pair.two, "n2", pair.second)
    assert [told for _, _, told, _ in pair.second.heard_of] == [head]


async def test_a_large_batch_does_not_come_along(pair: Pair) -> None:
    """It is told of, and is to be read."""
    await pair.writer.append("fits", size=WAKE_UP_BYTES)
    head = (await pair.writer.append("large", size=WAKE_UP_BYTES + 1)).head
    await pair.second.until(head)
    assert [batch and batch.batch_id for _, _, _, batch in pair.second.heard_of] == ["fits", None]


async def test_who_has_ended_to_listen_hears_no_more(pair: Pair) -> None:
    """Not even of an append just made; ended twice it is harmless."""
    await pair.writer.append("b1")
    pair.end_second()
    heard = list(pair.second.heard_of)
    await pair.two.open("s", "e1", watcher="n2")
    await pair.writer.append("b2")
    third = Ear()
    end = pair.one.listen("n3", third)
    await pair.last(pair.one, "n3", third)
    end()
    pair.end_second()
    assert pair.second.heard_of == heard


async def test_a_node_that_leaves_watches_nothing(pair: Pair) -> None:
    """What it gives up with its lease is what it watched, too."""
    await pair.two.renew("n2", 1_000, LiveNode())
    await pair.two.release("n2")
    await pair.writer.append("b1")
    await pair.last(pair.two, "n2", pair.second)
    assert pair.second.heard_of == []


async def test_a_listener_that_fails_keeps_nothing_from_the_others(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it raises is logged: it hears on, and so do they."""
    third = Ear()
    end = pair.one.listen("n3", third)
    await pair.one.open("s", "e1", watcher="n3")

    def fails(*_: object) -> None:
        raise RuntimeError("as a test says")

    with monkeypatch.context() as patch:
        patch.setattr(pair.second, "heard", fails)
        head = (await pair.writer.append("b1")).head
        await third.until(head)
        await pair.last(pair.one, "n3", third)
    head = (await pair.writer.append("b2")).head
    await pair.second.until(head)
    assert "as a test says" in "".join(capsys.readouterr())
    end()
