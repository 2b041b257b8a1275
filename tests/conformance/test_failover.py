"""A store that goes on from what it had earlier: nobody who had it closed meanwhile could notice what it has lost."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from holdfast.server.store import Appended, Head, Store
from tests.conformance.harness import Place, Writer


@asynccontextmanager
async def _opened(place: Place) -> AsyncGenerator[Store]:
    store = place.store()
    await store.start()
    yield store
    await store.close()


async def _lose_the_second_batch(place: Place) -> None:
    """There is a log of one batch where there was one of two."""
    async with _opened(place) as store:
        await store.open("s", "e1")
        writer = Writer(store)
        await writer.append("b1")
        saved = place.save()
        await writer.append("b2")
    place.fail_over(saved)


async def test_a_log_that_may_have_lost_its_end_is_suspect(place: Place) -> None:
    """Whoever opens it is told, until it has a new epoch: the same epoch may name other events elsewhere."""
    await _lose_the_second_batch(place)
    async with _opened(place) as store:
        log = await store.open("s", "x")
        assert (log.head, log.suspect) == (Head("e1", 1, "b1"), True)
        assert (await store.open("s", "x")).suspect
        assert await store.new_epoch("s", log.head, "e2", 1)
        assert not (await store.open("s", "x")).suspect
        assert not (await store.open("made since", "x")).suspect


async def test_what_is_appended_makes_a_log_no_less_suspect(place: Place) -> None:
    """A node that had it open all the time goes on; who opens it later must be told all the same."""
    await _lose_the_second_batch(place)
    async with _opened(place) as store:
        writer = Writer(store)
        writer.head = Head("e1", 1, "b1")
        assert isinstance(await writer.append("other"), Appended)
        assert (await store.open("s", "x")).suspect


async def test_suspicion_stays_with_a_log_that_nobody_opens(place: Place) -> None:
    """However often the store is closed and opened in good order in between."""
    await _lose_the_second_batch(place)
    async with _opened(place):
        pass
    async with _opened(place) as store:
        assert (await store.open("s", "x")).suspect


async def test_every_failover_makes_suspect_anew(place: Place) -> None:
    """Also a log that has had its new epoch for the one before."""
    await _lose_the_second_batch(place)
    async with _opened(place) as store:
        assert await store.new_epoch("s", (await store.open("s", "x")).head, "e2", 1)
        saved = place.save()
    place.fail_over(saved)
    async with _opened(place) as store:
        assert (await store.open("s", "x")).suspect


async def test_a_store_that_lost_nothing_suspects_nothing(place: Place) -> None:
    """Closed and opened again, a log is as good as it was."""
    async with _opened(place) as store:
        await store.open("s", "e1")
        await Writer(store).append("b1")
    async with _opened(place) as store:
        assert not (await store.open("s", "x")).suspect
