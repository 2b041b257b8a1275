"""A store that fails: unknown outcomes, silence, lost contents, and another node's writes."""

from __future__ import annotations

import pytest

from holdfast.server.agents.agent import Agent
from holdfast.server.agents.run import Run
from holdfast.server.session.records import decode_batch
from tests.support.cluster import cluster
from tests.support.doubles import settled
from tests.support.faulty_store import Loss


@pytest.mark.parametrize("losses", [["after"], ["before"], ["after", "before", "after", None]])
async def test_an_append_of_unknown_outcome_is_repeated_unchanged(losses: list[Loss | None]) -> None:
    """Nothing else of the session is appended until it is known, and nothing is in the log twice."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        h.road.lose("append", *losses)
        call.say("a")
        await settled()
        assert device.text("r1") == ""
        call.say("b")
        call.end()
        await h.clock.pass_ms(2_000)
        assert (await device.wire.event("run.ended"))["reason"] == "completed"
        assert h.text("r1") == device.text("r1") == "ab"


async def test_an_append_that_was_accepted_and_built_upon_is_found() -> None:
    """The reply is lost and another node appends behind it: what was accepted is acknowledged, once."""
    async with cluster(shared=True) as h:
        await h.start()
        one, two = await h.device("d1"), await h.device("d2", number=1)
        h.roads[1].deaf = True
        h.road.lose("append", "after")
        answer = one.ask("send", id="r1", text="go")
        await settled()
        other = await two.send("send", id="r2", text="go")
        assert other["outcome"] == "queued"
        await h.clock.pass_ms(1_000)
        assert (await answer)["outcome"] == "started"
        assert h.kinds("r1") == ["message", "run.started"]
        (await h.puppet.call()).end()
        await one.wire.event("run.ended", runId="r1")
        await h.clock.pass_ms(6_000)
        assert one.messages == two.messages


@pytest.mark.parametrize("silent", [False, True])
async def test_commands_are_told_that_the_store_does_not_answer(silent: bool) -> None:
    """Within five seconds, whether it fails or says nothing; a repeat of the same id is the same command."""
    async with cluster() as h:
        device = await h.device()
        if silent:
            h.road.pause("append")
        else:
            h.road.down = True
        first = device.ask("send", id="r1", text="go")
        await h.clock.pass_ms(1_000)
        second = device.ask("send", id="r2", text="then")
        await h.clock.pass_ms(3_900)
        assert first.result()["code"] == "unavailable"
        assert first.result()["retryable"]
        await h.clock.pass_ms(1_000)
        assert second.result()["code"] == "unavailable"
        h.road.down = False
        h.road.resume()
        await h.clock.pass_ms(1_000)
        again = [await device.send("send", id=run_id, text=text) for run_id, text in (("r1", "go"), ("r2", "then"))]
        assert again[0]["outcome"] == "started"
        assert again[1]["outcome"] == "queued"
        assert len(h.of("r1", "run.started")) == 1
        assert len(h.of("r2", "run.queued")) == 1


async def test_a_cancel_given_while_the_store_is_down_is_not_lost() -> None:
    """Its sender hears `unavailable`, and may be gone: the run ends as soon as the store is back."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        call.say("one ")
        await settled()
        h.road.down = True
        call.say("two ")
        await settled()
        answer = device.ask("cancel", id="k1", runId="r1")
        await h.clock.pass_ms(6_000)
        assert answer.result()["code"] == "unavailable"
        assert call.ended.is_set()
        device.leave()
        h.road.down = False
        await h.clock.pass_ms(1_000)
        assert h.of("r1", "run.ended")[0]["reason"] == "cancelled"
        assert (await device.send("cancel", id="k1", runId="r1"))["duplicate"]


async def test_what_was_answered_in_an_outage_does_not_pile_up() -> None:
    """Cancels that stopped nobody here are forgotten like other commands; of those of one run the first stays."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        h.road.down = True
        call.say("one ")
        await settled()
        answers = [device.ask("cancel", id=f"k{number}", runId="r1") for number in range(3)]
        answers += [
            device.ask("cancel", id=f"p{number}", runId=f"r9{number}", ifUnknown="prevent") for number in range(3)
        ]
        await h.clock.pass_ms(6_000)
        assert [answer.result()["code"] for answer in answers] == ["unavailable"] * 6
        assert call.ended.is_set()
        h.road.down = False
        await h.clock.pass_ms(1_000)
        assert [(event["runId"], event["command"]) for event in h.events() if event["type"] == "run.ended"] == [
            ("r1", "k0")
        ]  # fmt: skip


async def test_a_store_that_lost_data_begins_a_new_epoch() -> None:
    """Everyone gets a reset snapshot; the agent of a run that the log does not know is stopped."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r0", text="first")
        (await h.puppet.call()).end()
        await device.wire.event("run.ended")
        saved = h.store.save()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call(1)
        call.say("lost ")
        await settled()
        h.store.roll_back(saved)
        old = device.cursor()
        assert old is not None
        call.say("more ")
        await settled()
        snapshot = await device.wire.event("snapshot", reset=True)
        assert snapshot["epoch"] != old["epoch"]
        assert snapshot["seq"] >= old["seq"]
        assert call.ended.is_set()
        assert [message.get("runId") for message in device.messages] == ["r0", "r0"]
        assert (await device.send("send", id="r1", text="go"))["outcome"] == "started"


async def test_a_store_that_lost_data_and_was_written_on_is_noticed() -> None:
    """The same seq with another batch is another history: its late reader is reset and never mixes the two."""
    async with cluster(shared=True) as h:
        await h.start()
        one = await h.device("d1")
        saved = h.store.save()
        h.road.deaf = True
        await one.send("send", id="r1", text="mine")
        await settled()
        h.store.roll_back(saved)
        two = await h.device("d2", number=1)
        await two.send("send", id="r2", text="other")
        await settled()
        assert one.reader.seq == two.reader.seq
        ack = await one.send("cancel", id="k1", runId="r1")
        assert ack["outcome"] == "unknown_run"
        await settled()
        assert one.wire.received[-1]["type"] == "ack"
        assert [message.get("runId") for message in one.messages] == ["r2", "r2"]
        assert any(message.get("reset") for message in one.wire.received)


async def test_an_old_epoch_that_comes_back_is_not_taken_up() -> None:
    """A store rolled back beyond an epoch's beginning would number events a second time: a third epoch begins."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="one")
        saved = h.store.save()
        first = device.reader.epoch
        await device.send("send", id="r2", text="two")
        h.store.roll_back(saved)
        await device.send("send", id="r3", text="three")
        await settled()
        second = device.reader.epoch
        h.store.roll_back(saved)
        await device.send("send", id="r4", text="four")
        await settled()
        assert len({first, second, device.reader.epoch}) == 3
        assert h.store.ledger["s"][-1][0] == device.reader.epoch


async def test_a_run_whose_end_was_lost_is_ended_again() -> None:
    """A stop that the store forgot leaves a run that nobody works on: it ends as lost, and not never."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        call.say("one ")
        await settled()
        saved = h.store.save()
        h.road.pause("append")
        answer = device.ask("cancel", id="k1", runId="r1")
        await settled()
        h.road.resume()
        await answer
        h.store.roll_back(saved)
        await device.send("send", id="r2", text="then")
        await settled()
        assert h.of("r1", "run.ended")[0]["reason"] in ("lost", "cancelled")


async def test_a_batch_and_its_acknowledgement_are_one() -> None:
    """While an append is on its way nobody is told anything of it, and no subscriber sees it."""
    async with cluster() as h:
        device = await h.device()
        h.road.pause("append")
        answer = device.ask("send", id="r1", text="go")
        await settled()
        assert not answer.done()
        assert device.wire.events == []
        h.road.resume()
        await answer
        assert [event["type"] for event in device.wire.events[:2]] == ["message", "run.started"]
        tail = await h.store.read("s", 0)
        assert len(decode_batch(tail.batches[0].payload)) == 2


async def test_a_node_that_lost_its_lease_stops_its_agents() -> None:
    """Others may take its runs over: cut off for a lease it stops, and adds nothing when it comes back."""
    async with cluster(shared=True) as h:
        await h.start()
        one, two = await h.device("d1"), await h.device("d2", number=1)
        await one.send("send", id="r1", text="go")
        call = await h.puppet.call()
        call.say("one ")
        await settled()
        h.road.pause("renew", "append", "heads", "open", "read")
        call.say("two ")
        await h.clock.pass_ms(20_000, 500)
        assert call.ended.is_set()
        assert h.of("r1", "run.ended")[0]["reason"] == "lost"
        assert two.text("r1") == "one "
        h.road.resume()
        await h.clock.pass_ms(3_000, 500)
        assert one.text("r1") == "one "
        assert h.kinds("r1")[-1] == "run.ended"


async def test_a_remote_cancel_stops_the_agent_without_a_wake_up() -> None:
    """From another node: at the next look at the head, at most a second later, even if every wake-up is lost."""
    async with cluster(shared=True) as h:
        await h.start()
        one, two = await h.device("d1"), await h.device("d2", number=1)
        await one.send("send", id="r1", text="go")
        call = await h.puppet.call()
        h.road.deaf = True
        assert (await two.send("cancel", id="k1", runId="r1"))["outcome"] == "cancelled"
        await h.clock.pass_ms(1_100)
        assert call.ended.is_set()
        assert h.of("r1", "run.settled")[0]["confirmed"]
        assert one.messages == two.messages


async def test_a_stop_of_everything_that_loses_its_position_leaves_no_run_hanging() -> None:
    """The agent has stopped for it already; the store lost data, and the position means nothing: the run fails."""
    async with cluster() as h:
        device = await h.device()
        await device.send("send", id="r1", text="go")
        call = await h.puppet.call()
        saved = h.store.save()
        call.say("one ")
        await settled()
        cursor = device.cursor() or {}
        h.store.roll_back(saved)
        h.road.lose("append", "before")
        call.say("two ")
        answer = device.ask("cancel", id="k1", scope="session", upTo={"epoch": cursor["epoch"], "seq": cursor["seq"]})
        await h.clock.pass_ms(1_000)
        assert (await answer)["outcome"] == "cancelled"
        await settled()
        assert len(h.of("r1", "run.ended")) == 1


async def test_a_request_that_the_store_lost_is_withdrawn() -> None:
    """Nobody can answer it any more: its agent is told, and does not wait for ever."""
    told: list[str] = []

    async def asker(run: Run) -> None:
        told.append((await run.ask("input", prompt="?")).outcome)

    async with cluster() as h:
        h.nodes[0].agents = {"puppet": Agent("puppet", asker)}
        device = await h.device()
        h.road.pause("append")
        send = device.ask("send", id="r1", text="go")
        await settled()
        h.road.resume()
        await send
        saved = h.store.save()
        await device.wire.event("run.requested")
        h.store.roll_back(saved)
        await device.send("send", id="r2", text="then")
        await settled()
        assert told[:1] == ["withdrawn"]
