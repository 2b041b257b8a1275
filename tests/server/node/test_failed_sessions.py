"""A session that fails: everyone who waits is told, nothing of it is left, and what it owes is done by the next one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from holdfast.protocol.close_codes import CloseCode
from holdfast.server.errors import SessionFailedError, StoreError, UnknownFormatError
from holdfast.server.node.failed_sessions import FAILURES_IN_A_ROW, SHUT_SECONDS, FailedSessions
from holdfast.server.store import Checkpoint, Log
from tests.support.cluster import Cluster, cluster
from tests.support.doubles import Device, settled


async def fail(h: Cluster, device: Device, command_id: str) -> dict[str, Any]:
    """Makes the session fail by a command that its store cannot append; what its sender was told."""
    h.road.broken.add("append")
    answer = await device.send("send", id=command_id, text="go")
    h.road.broken.clear()
    await settled()
    return answer


async def test_everyone_who_waits_is_told() -> None:
    """Commands of the batch and behind it, reads and joins: each has its answer, and nothing more is taken."""
    async with cluster() as h:
        device = await h.device()
        session = device.session
        h.road.pause("append")
        commands = [device.ask("send", id=f"r{number}", text="go") for number in range(64)]
        await settled()
        commands += [device.ask("cancel", id="k1", runId="r1"), device.ask("send", id="r99", text="go")]
        reads: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(session.history("h1", None, 10)),
            asyncio.ensure_future(session.settled()),
            asyncio.ensure_future(Device(session, device="d2").join()),
        ]
        await settled()
        h.road.broken.add("append")
        h.road.resume()
        await settled()
        commands.append(device.ask("send", id="r100", text="go"))
        answers = [command.result() for command in commands]
        assert {(answer["code"], answer["retryable"]) for answer in answers} == {("unavailable", True)}
        outcomes = await asyncio.gather(*reads, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [SessionFailedError] * 3
        assert device.wire.closed_with is CloseCode.STORE_UNAVAILABLE
        assert not session.busy or session.subscribers.present


async def test_an_answer_that_cannot_be_told_keeps_no_other_one() -> None:
    """It is one connection's defect: the commands beside it are answered, and the session goes on."""
    async with cluster() as h:
        broken, whole = await h.device("d1"), await h.device("d2")

        def raising(*_: object) -> None:
            raise RuntimeError("this connection is broken")

        broken.heard = raising
        for number in range(2):
            lost = broken.ask("send", id=f"b{number}", text="go")
            assert (await whole.send("send", id=f"w{number}", text="go"))["outcome"] == "queued"
            assert not lost.done()
        await fail(h, whole, "w9")
        assert whole.session.failed


async def test_a_failure_is_logged_once_with_its_cause() -> None:
    """With session, node, position and runs; readers that were behind add nothing to it."""
    async with cluster() as h:
        device, slow = await h.device("d1"), await h.device("d2")
        await device.send("send", id="r1", text="go")
        slow.wire.congested = True
        (await h.puppet.call()).say("one")
        await settled()
        with capture_logs() as logs:
            await fail(h, device, "r2")
            slow.wire.flow()
            await h.clock.pass_ms(1_000)
        errors = [line for line in logs if line["log_level"] == "error"]
        assert [line["event"] for line in errors] == ["session failed"]
        (line,) = errors
        assert (line["session"], line["node"], line["runs"]) == ("s", h.nodes[0].node, ["r1"])
        assert (line["epoch"], line["seq"]) == (device.reader.epoch, device.reader.seq)
        assert isinstance(line["exc_info"], StoreError)


@pytest.mark.parametrize("shared", [False, True])
async def test_what_is_owed_in_a_failed_session_is_done(shared: bool) -> None:
    """Nobody comes back: its agent is stopped, its run ends as lost, and its queue moves on all the same."""
    async with cluster(shared=shared) as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await device.send("send", id="r2", text="then")
        call = await h.puppet.call()
        call.say("partial")
        await settled()
        assert (await fail(h, device, "r3"))["code"] == "unavailable"
        assert call.ended.is_set()
        device.leave()
        await h.release()
        await h.clock.pass_ms(6_000, 500)
        assert h.of("r1", "run.ended")[0]["reason"] == "lost"
        assert h.text("r1") == "partial"
        (await h.puppet.call(1)).end()
        await settled()
        assert h.of("r2", "run.ended")[0]["reason"] == "completed"


async def test_nothing_of_a_failed_session_is_left() -> None:
    """Neither its timers nor itself, whether it was opened again or not."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go", deadlineMs=60_000)
        await fail(h, device, "r2")
        assert h.clock.waiting == 1, "the node's own"
        device.leave()
        again = await h.device("d2")
        await settled()
        assert again.session is not device.session
        assert h.of("r1", "run.ended")[0]["reason"] == "lost"
        again.leave()
        await h.release()
        await h.clock.pass_ms(40_000, 1_000)
        assert h.nodes[0].sessions == {}
        assert h.clock.waiting == 1


async def test_one_that_fails_while_the_index_is_read_keeps_no_other_one() -> None:
    """It is left alone for now; what is owed in the others is done in the same round."""
    async with cluster(shared=True) as h:
        await h.start()
        device, other = await h.device(), await h.device("d2", number=1, session="t")
        for each in (device, other):
            await each.send("send", id="r1", text="go")
        await fail(h, device, "r2")
        other.leave()
        device.leave()
        again = await h.device("d3")
        await again.send("send", id="r4", text="go")
        await h.kill(1)
        h.road.pause("orphans")
        await h.clock.pass_ms(5_000, 500)
        await fail(h, again, "r3")
        assert again.session.failed
        h.road.resume()
        await settled()
        assert h.store.events("t")[-1]["type"] == "run.ended", "the other one was not looked after"
        await h.clock.pass_ms(1_000, 500)


async def test_a_session_that_fails_again_and_again_stays_shut() -> None:
    """After a bounded number of tries the server leaves it alone and says why; others go on, and asking tries again."""
    async with cluster() as h:
        device, other = await h.device(), await h.device("d2", session="other")
        await device.send("send", id="r1", text="go")
        h.road.broken.add("append")
        device.ask("send", id="r2", text="go")
        await settled()
        device.leave()
        opened = h.road.calls["open"]
        with capture_logs() as logs:
            await h.clock.pass_ms(120_000, 500)
        assert h.road.calls["open"] - opened == FAILURES_IN_A_ROW - 1
        assert [line["session"] for line in logs if line["event"] == "session stays shut"] == ["s"]
        opened = h.road.calls["open"]
        h.road.broken.clear()
        await h.clock.pass_ms(60_000, 500)
        assert h.road.calls["open"] == opened, "the server does not try by itself any more"
        assert (await other.send("send", id="o1", text="go"))["outcome"] == "started"
        late = await h.device("late")
        await settled()
        assert h.of("r1", "run.ended")[0]["reason"] == "lost"
        assert late.messages


async def test_whoever_asks_for_a_session_that_stays_shut_is_told_why() -> None:
    """For a minute; a checkpoint that cannot be read fails a session like anything else."""
    async with cluster() as h:
        await h.store.open("s", "e1")
        await h.store.compact("s", "e1", Checkpoint(0, b"\xc1"), messages=[], records={}, trim_to=0)
        for pause_ms in (0, 5_000, 10_000, 20_000, 0):
            with pytest.raises(SessionFailedError):
                await h.device()
            with pytest.raises(SessionFailedError, match=r"failed \d times in a row|has the reason"):
                await h.device()
            await h.clock.pass_ms(pause_ms, 1_000)
        for _ in range(3):
            with pytest.raises(SessionFailedError, match="failed 5 times in a row on this server, whose log"):
                await h.session()
        await h.clock.pass_ms(60_000, 1_000)
        with pytest.raises(SessionFailedError, match=r"whose log has the reason$"):
            await h.device()
        with pytest.raises(SessionFailedError, match="failed 6 times in a row"):
            await h.session()


def test_failures_in_a_row() -> None:
    """Pauses grow; ten minutes without a failure are a new beginning; sessions do not know of each other."""
    failed, now = FailedSessions(), 0.0
    tries: list[float] = []
    while now < 100:
        if failed.refusal("s", now) is None and not failed.left_alone("s", now):
            tries.append(now)
            assert failed.failed("s", now) is (len(tries) == FAILURES_IN_A_ROW)
        now += 1.0
    assert tries == [0, 1, 6, 16, 36]
    assert failed.refusal("s", 36 + SHUT_SECONDS) is None
    assert failed.left_alone("s", 36 + 600)
    assert not failed.left_alone("s", 36 + 601)
    assert not failed.left_alone("other", 0)
    assert not failed.failed("s", 36 + 601)


async def test_a_store_that_refuses_the_lease_is_asked_again() -> None:
    """After an error that is no outage too: it is logged, idle sessions are closed, the next round tries again."""
    async with cluster() as h:
        await h.session()
        await h.release()
        h.road.broken.update(("renew", "orphans"))
        renewed = h.road.calls["renew"]
        with capture_logs() as logs:
            await h.clock.pass_ms(40_000, 1_000)
        assert h.road.calls["renew"] - renewed == 40
        assert [line["event"] for line in logs].count("lease not renewed") == 40
        assert [line["event"] for line in logs].count("index not read") == 8
        assert h.nodes[0].sessions == {}


async def test_a_log_of_a_later_version_is_refused_and_not_tried_again_and_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is wrong here: who asks is told at once, the log says it in a line, and no sweep opens it."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        await h.kill()
        device.leave()
        opened: list[str] = []

        async def unknown(session: str, *_: object, **__: object) -> Log:
            opened.append(session)
            raise UnknownFormatError("the log has format 2, and this version of Holdfast knows format 1")

        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(h.store, "open", unknown)
            await h.start()
            await h.clock.pass_ms(50_000, 1_000)
            assert opened == ["s"]
            with pytest.raises(SessionFailedError, match="cannot be opened on this server"):
                await h.session(1)
        written = "".join(capsys.readouterr())
        assert "the log has format 2" in written
        assert "Traceback" not in written
        await h.clock.pass_ms(12_000, 1_000)
        await h.session(1)
        await h.clock.pass_ms(5_000, 1_000)
        assert h.of("r1", "run.ended"), "whoever opened it has it looked after, too"
