"""Compaction: checkpoint, archive and trimming in one step."""

from __future__ import annotations

from holdfast.server.store import Batch, Checkpoint, Head, Log, Store, StoredMessage, StoredSize
from tests.conformance.harness import OWED, Writer


def _message(seq: int, text: bytes = b"") -> StoredMessage:
    return StoredMessage(seq, f"m{seq}", text or b"%d" % seq)


async def _compact(writer: Writer, seq: int, trim_to: int = 0, *messages: StoredMessage, **records: bytes) -> bool:
    checkpoint = Checkpoint(seq, b"state %d" % seq)
    return await writer.store.compact(
        "s", writer.head.epoch, checkpoint, messages=messages, records=records, trim_to=trim_to
    )


async def _fill(writer: Writer, batches: int, count: int = 2) -> None:
    for number in range(1, batches + 1):
        await writer.append(f"b{number}", count)


async def test_compact_writes_everything_in_one_step(writer: Writer) -> None:
    """Checkpoint, messages, records and trimming are all there when compaction says so."""
    await _fill(writer, 3)
    assert await _compact(writer, 4, 4, _message(1), _message(3), r1=b"x")
    assert await writer.store.open("s", "e9") == Log(
        Head("e1", 6, "b3"), Checkpoint(4, b"state 4"), (Batch("b3", 5, 6, b"b3."),)
    )
    assert (await writer.store.read("s", 0)).floor == 4
    assert await writer.store.messages("s", None, 9) == [_message(1), _message(3)]
    assert await writer.store.find("s", ["r1", "r2"]) == {"r1": b"x"}


async def test_an_older_checkpoint_never_replaces_a_later_one(writer: Writer) -> None:
    """A late compaction adds its facts and leaves the later checkpoint; it may trim up to that."""
    await _fill(writer, 3)
    assert await _compact(writer, 4)
    assert await _compact(writer, 2, 4, _message(1), r1=b"x")
    log = await writer.store.open("s", "e9")
    assert log.checkpoint == Checkpoint(4, b"state 4")
    assert await writer.store.messages("s", None, 9) == [_message(1)]
    assert await writer.store.find("s", ["r1"]) == {"r1": b"x"}
    assert (await writer.store.read("s", 0)).floor == 4


async def test_a_later_checkpoint_replaces(writer: Writer) -> None:
    """The checkpoint goes forward, and one of the same seq takes the place of the earlier."""
    await _fill(writer, 2)
    assert await _compact(writer, 2)
    assert await _compact(writer, 4)
    again = Checkpoint(4, b"again")
    assert await writer.store.compact("s", "e1", again, messages=[], records={}, trim_to=0)
    assert (await writer.store.open("s", "e9")).checkpoint == again


async def test_nothing_after_the_checkpoint_is_trimmed(writer: Writer) -> None:
    """Whatever the caller says, what the checkpoint does not cover stays."""
    await _fill(writer, 3)
    assert await _compact(writer, 3, trim_to=6)
    tail = await writer.store.read("s", 2)
    assert tail.floor == 2
    assert [batch.batch_id for batch in tail.batches] == ["b2", "b3"]


async def test_only_whole_batches_are_trimmed(writer: Writer) -> None:
    """A batch that straddles the trim stays whole, and the floor says what is really gone."""
    await _fill(writer, 3)
    assert await _compact(writer, 6, trim_to=3)
    tail = await writer.store.read("s", 0)
    assert tail.floor == 2
    assert [(batch.first_seq, batch.last_seq) for batch in tail.batches] == [(3, 4), (5, 6)]


async def test_the_floor_never_goes_back(writer: Writer) -> None:
    """A compaction that trims less than an earlier one, or nothing, leaves the floor."""
    await _fill(writer, 3)
    assert await _compact(writer, 4, trim_to=4)
    assert await _compact(writer, 5, trim_to=2)
    assert (await writer.store.read("s", 0)).floor == 4


async def test_a_log_trimmed_to_its_head_goes_on(writer: Writer) -> None:
    """With no batch left the head stays, a repeat of the last batch is still known, and appends follow."""
    await _fill(writer, 2)
    last = Batch("b2", 3, 4, b"b2.")
    assert await _compact(writer, 4, trim_to=4)
    assert await writer.store.head("s") == Head("e1", 4, "b2")
    repeat = await writer.store.append("s", Head("e1", 2, "b1"), last, node="n1", owed=OWED)
    assert repeat.head == Head("e1", 4, "b2")
    await writer.append("b3")
    log = await writer.store.open("s", "e9")
    assert log.head == Head("e1", 5, "b3")
    assert [batch.batch_id for batch in log.batches] == ["b3"]


async def test_compaction_of_another_epoch_is_refused(writer: Writer) -> None:
    """Who folded another epoch has folded another log: nothing of its compaction is written."""
    await _fill(writer, 2)
    stale = Checkpoint(2, b"x")
    assert not await writer.store.compact("s", "e0", stale, messages=[_message(1)], records={"r": b"x"}, trim_to=2)
    assert (await writer.store.open("s", "e9")).checkpoint is None
    assert await writer.store.messages("s", None, 9) == []
    assert await writer.store.find("s", ["r"]) == {}
    assert (await writer.store.read("s", 0)).floor == 0


async def test_a_checkpoint_beyond_the_head_is_refused(writer: Writer) -> None:
    """Who folded more than the log has must not hide that with a checkpoint."""
    await _fill(writer, 2)
    assert not await _compact(writer, 5, 5, _message(1))
    assert (await writer.store.open("s", "e9")).checkpoint is None
    assert await writer.store.messages("s", None, 9) == []


async def test_compaction_needs_a_log(store: Store) -> None:
    """A compaction never makes a log."""
    assert not await store.compact("s", "e1", Checkpoint(0, b""), messages=[], records={}, trim_to=0)
    assert await store.head("s") is None


async def test_contents_survive_a_new_epoch(writer: Writer) -> None:
    """Checkpoint, archive and floor stay, and compaction goes on in the new epoch."""
    await _fill(writer, 2)
    assert await _compact(writer, 2, 2, _message(1), r=b"x")
    assert await writer.store.new_epoch("s", Head("e1", 4, "b2"), "e2", 8)
    log = await writer.store.open("s", "e9")
    assert log.checkpoint == Checkpoint(2, b"state 2")
    assert [batch.batch_id for batch in log.batches] == ["b2"]
    assert await writer.store.messages("s", None, 9) == [_message(1)]
    assert await writer.store.find("s", ["r"]) == {"r": b"x"}
    writer.head = Head("e2", 8, "b2")
    assert await _compact(writer, 8, 8)
    assert (await writer.store.read("s", 0)).floor == 4
    assert await writer.store.head("s") == Head("e2", 8, "b2")


async def test_messages_come_in_pages_from_the_end(writer: Writer) -> None:
    """A page holds the highest seqs below `before`, ascending; the pages together are the archive."""
    await _fill(writer, 5)
    await _compact(writer, 2, 0, _message(7), _message(2))
    await _compact(writer, 4, 0, _message(4), _message(9))
    page = writer.store.messages
    assert await page("s", None, 2) == [_message(7), _message(9)]
    assert await page("s", 7, 2) == [_message(2), _message(4)]
    assert await page("s", 8, 9) == [_message(2), _message(4), _message(7)]
    assert await page("s", 2, 9) == []
    assert await page("s", None, 0) == []
    assert await page("other", None, 9) == []


async def test_what_is_written_twice_keeps_the_last(writer: Writer) -> None:
    """A message of one seq and a record of one key are there once, as written last."""
    await _fill(writer, 1)
    await _compact(writer, 2, 0, _message(1, b"a"), r=b"a", other=b"o")
    await _compact(writer, 1, 0, _message(1, b"b"), r=b"b")
    assert await writer.store.messages("s", None, 9) == [_message(1, b"b")]
    assert await writer.store.find("s", ["r", "other"]) == {"r": b"b", "other": b"o"}


async def test_records_are_found_by_key_and_session(writer: Writer) -> None:
    """Only what exists is returned, of this session alone; no key is special."""
    await _fill(writer, 1)
    odd = {"": b"1", "a'b\"": b"2", "ü, %": b""}
    assert await writer.store.compact("s", "e1", Checkpoint(1, b""), messages=[], records=odd, trim_to=0)
    assert await writer.store.find("s", [*odd, "missing", ""]) == odd
    assert await writer.store.find("s", []) == {}
    assert await writer.store.find("other", list(odd)) == {}


async def test_sizes_and_pieces_are_those_of_the_messages(writer: Writer) -> None:
    """What is said of an archived message without reading it is true, and its pieces in any order make it whole."""
    await _fill(writer, 5)
    long = _message(4, bytes(range(256)) * 300)
    await _compact(writer, 2, 0, _message(7), _message(2))
    await _compact(writer, 4, 0, long, _message(9))
    store = writer.store
    for before, limit in ((None, 9), (None, 2), (7, 2), (8, 9), (2, 9), (None, 0)):
        sizes = await store.message_sizes("s", before, limit)
        messages = await store.messages("s", before, limit)
        assert sizes == [StoredSize(item.seq, item.message_id, len(item.payload)) for item in messages]
    assert await store.message_sizes("other", None, 9) == []
    pieces = {start: await store.message_piece("s", 4, start, 1_000) for start in (5_000, *range(0, 80_000, 1_000))}
    assert b"".join(pieces[start] for start in sorted(pieces)) == long.payload
    assert await store.message_piece("s", 7, 0, 99) == b"7"
    assert await store.message_piece("s", 5, 0, 99) == await store.message_piece("other", 4, 0, 99) == b""
    assert await store.message_piece("s", 4, 0, 10) == long.payload[:10]
    await _compact(writer, 4, 0, _message(4, b"another"))
    assert await store.message_piece("s", 4, 0, 10) == b"another"
