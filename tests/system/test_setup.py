"""How a server is set up: who may come in, what it refuses to start with, and what it shows of its settings."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest

from holdfast.client import ConnectionClosedError, connect
from tests.support.plain_client import dial, greeted
from tests.support.program import ROOT, Ended, Serve, holdfast, outcome, started
from tests.support.python_client import counted, ended

TOKENS = {"HOLDFAST_TOKENS": "ana:secret-of-ana,ben:secret-of-ben"}


def refused(ended: Ended) -> tuple[int | None, str]:
    """Exit code and sentence of a server that did not start; the sentence is all that it says."""
    assert ended.out == ""
    assert ended.err.startswith("Error: ")
    assert ended.err.count("\n") == 1
    return ended.code, ended.err.removeprefix("Error: ").rstrip()


async def test_only_who_has_a_token_comes_in(tmp_path: Path) -> None:
    """With tokens the command line needs one, messages carry its principal, and every other token leaves with 3."""
    with Serve("--demo-words-per-second", "500", cwd=tmp_path, env=TOKENS) as server:
        assert "(with --token or HOLDFAST_TOKEN)" in "".join(server.out.said)
        ana = await holdfast("send", "count to 3", "--token", "secret-of-ana", server=server)
        ben = await holdfast("history", server=server, env={"HOLDFAST_TOKEN": "secret-of-ben"})
        assert (ana.code, ana.out) == (0, f"{counted(3)}\n")
        assert (ben.code, ben.out) == (0, f"ana: count to 3\nassistant: {counted(3)}\n")
        nobody = await holdfast("history", server=server)
        wrong = await holdfast("history", "--token", "secret-of-eve", server=server)
        assert [(nobody.code, nobody.out), (wrong.code, wrong.out)] == [(3, ""), (3, "")]
        assert "a token is needed" in nobody.err
        assert "this token is not known" in wrong.err
        with pytest.raises(ConnectionClosedError) as caught:
            await connect(server.url, session="s", token="secret-of-eve")
        assert caught.value.close_code == 4500
        async with connect(server.url, session="s", token=lambda: "secret-of-ben") as client:
            assert client.principal == "ben"
            assert (await ended(await client.send("count to 2"))).text == counted(2)
        server.kill()
        assert "secret-of" not in "".join(server.log.said)


async def test_tokens_by_hand(tmp_path: Path) -> None:
    """A token may come in the header of the request; `auth` refreshes it, and never makes another principal of it."""
    with Serve(cwd=tmp_path, env=TOKENS) as server:
        async with dial(server.url, "s", headers={"Authorization": "Bearer secret-of-ana"}) as wire:
            await wire.say("hello")
            assert (await wire.type("welcome"))["principal"] == "ana"
            await wire.type("caughtUp")
            refreshed = await wire.command("auth", "a1", token="secret-of-ana")
            other = await wire.command("auth", "a2", token="secret-of-ben")
            wrong = await wire.command("auth", "a3", token="nothing")
            assert refreshed["outcome"] == "refreshed"
            assert [other["code"], wrong["code"]] == ["forbidden", "unauthorized"]
            assert (await wire.command("ping", "p1"))["outcome"] == "pong"
        async with dial(server.url, "s", headers={"Authorization": "Bearer nothing"}) as wire:
            await wire.say("hello")
            assert await wire.closed() == 4500
            assert [message["code"] for message in wire.received] == ["unauthorized"]


async def test_other_machines_are_not_let_in_unasked(tmp_path: Path) -> None:
    """An address that others can reach is refused without tokens, with 2 and what to do about it."""
    for host in ("0.0.0.0", "::"):
        code, sentence = refused(await holdfast("serve", "--host", host, "--port", "0", cwd=tmp_path))
        assert code == 2
        assert "HOLDFAST_TOKENS=name:token" in sentence


async def test_settings_are_shown_with_their_source_and_without_secrets(tmp_path: Path) -> None:
    """`holdfast config` names where each value came from, flags before the environment before the file."""
    (tmp_path / "holdfast.toml").write_text('port = 1\ndrain_ms = 2\ndemo_words_per_second = 3\nlog_level = "debug"\n')
    env = {**TOKENS, "OPENAI_API_KEY": "sk-secret-of-all", "HOLDFAST_PORT": "4", "HOLDFAST_DRAIN_MS": "5"}
    shown = await holdfast("config", "--port", "6", env=env, cwd=tmp_path)
    assert shown.code == 0
    assert "secret" not in shown.out + shown.err
    lines = shown.out.splitlines()
    assert "port = 6  # --port" in lines
    assert "drain_ms = 5  # HOLDFAST_DRAIN_MS" in lines
    assert "demo_words_per_second = 3.0  # holdfast.toml" in lines
    assert 'host = "127.0.0.1"  # default' in lines
    assert '# tokens = ["ana:***", "ben:***"]  # HOLDFAST_TOKENS' in lines
    assert '# openai_api_key = "***"  # OPENAI_API_KEY' in lines


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--store", "mongodb://x"), "mongodb"),
        (("--agent", "nobody"), "there is no agent 'nobody'; there are: demo"),
        (("--port", "70000"), "port (from --port)"),
        (("--config", "missing.toml"), "missing.toml cannot be read"),
        (("nothing:server",), "there is no module 'nothing'"),
        (("examples.assistant:nothing",), "'nothing' in 'examples.assistant' is no holdfast.server.Server"),
        (("examples.assistant",), "write module:attribute"),
    ],
    ids=["store", "agent", "port", "file", "module", "attribute", "form"],
)
async def test_what_is_set_up_wrong_is_said(arguments: tuple[str, ...], said: str) -> None:
    """A setting that cannot be ends the start with 2 and one sentence that names it."""
    code, sentence = refused(await holdfast("serve", "--port", "0", "--store", "memory:", *arguments, cwd=ROOT))
    assert code == 2
    assert said in sentence


async def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    """A port that somebody listens at ends the start with 1 and a sentence that names it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, sentence = refused(await holdfast("serve", "--port", str(port), cwd=tmp_path))
        assert code == 1
        assert f"port {port} is in use" in sentence


async def test_a_store_belongs_to_one_server(demo: Serve, tmp_path: Path) -> None:
    """A second server on the same file ends with 1 and a sentence; the first one goes on."""
    with Serve("--store", "sqlite:///one.db", "--demo-words-per-second", "500", cwd=tmp_path) as first:
        second = await holdfast("serve", "--port", "0", "--store", "sqlite:///one.db", cwd=tmp_path)
        code, sentence = refused(second)
        assert code == 1
        assert "one.db" in sentence
        sent = await holdfast("send", "count to 2", server=first)
        assert (sent.code, sent.out) == (0, f"{counted(2)}\n")


async def test_the_log_holds_ids_and_no_content(tmp_path: Path) -> None:
    """One JSON line tells of each connection, with its session and close code and nothing that was said."""
    with Serve("--demo-words-per-second", "500", cwd=tmp_path) as server:
        async with greeted(server.url, "trip") as wire:
            await wire.command("send", "r1", text="count to 3 secretly")
            await wire.type("run.ended")
        line = json.loads(server.log.until("connection closed"))
        assert (line["session"], line["code"]) == ("trip", 1000)
        server.kill()
        assert "secretly" not in "".join(server.log.said)


async def test_only_who_uses_a_model_waits_for_its_package() -> None:
    """The command line does not import the openai package, which takes as long as all the rest."""
    look = "import sys, holdfast.server.cli, holdfast.client.cli.commands; print('openai' in sys.modules)"
    async with started([sys.executable, "-c", look]) as process:
        assert (await outcome(process)).out == "False\n"
