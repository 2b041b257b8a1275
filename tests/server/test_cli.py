"""`holdfast serve` and `holdfast config`, as a person at a terminal meets them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from websockets.asyncio.client import ClientConnection, connect

from holdfast.server.cli import config, openai_client, own_server, serve, shipped_server
from holdfast.server.config import Config, load
from holdfast.server.errors import ConfigError

PATIENCE_SECONDS = 30


def _nothing(*_: object) -> None:
    """In the place of what is not done here."""


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty directory, and an environment without settings."""
    # What runs here sets up no logging: loggers keep it, and other tests read what they say.
    monkeypatch.setattr("holdfast.server.cli.configure_logging", _nothing)
    for name in list(os.environ):
        if name.startswith(("HOLDFAST_", "OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@contextmanager
def _serving(*arguments: str, program: str = "holdfast") -> Generator[tuple[subprocess.Popen[str], str], None, None]:
    """A server process, and the address that it printed."""
    words = [sys.executable, "-c", "from holdfast.server.cli import serve; serve()", "--port", "0", *arguments]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            said = "".join(process.stdout.readline() for _ in range(3))
            match = re.search(r"ws://[\d.]+:\d+", said)
            assert match, said + process.stderr.read()
            assert f" {program} chat --url {match[0]}\n" in said
            yield process, match[0]
        finally:
            if process.poll() is None:
                process.kill()


def _ends(process: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, out + err


async def _until(socket: ClientConnection, kind: str) -> dict[str, object]:
    async for frame in socket:
        message: dict[str, object] = json.loads(frame)
        if message["type"] == kind:
            return message
    raise AssertionError(f"the connection ended before {kind}")


async def test_a_server_drains_on_sigterm() -> None:
    """It says where it listens and what to try; SIGTERM lets it tell its clients, finish, and exit with 0."""
    with _serving("--store", "memory:", "--demo-words-per-second", "5000") as (process, url):
        async with connect(f"{url}/v1/sessions/s", proxy=None) as socket:
            await socket.send('{"type":"hello"}')
            await socket.send('{"type":"send","id":"r","text":"hi"}')
            assert (await _until(socket, "run.ended"))["reason"] == "completed"
            process.send_signal(signal.SIGTERM)
            assert (await _until(socket, "goaway"))["reason"] == "draining"
            await socket.wait_closed()
            assert socket.close_code == 4001
        code, output = await asyncio.to_thread(_ends, process)
        assert code == 0, output
        assert "Draining: no run is going on; again ends it now" in output


async def test_a_drain_needs_no_reader() -> None:
    """A server whose standard output nobody reads any more drains as every other, though it cannot say so."""
    with _serving("--store", "memory:") as (process, url):
        assert process.stdout is not None
        process.stdout.close()
        async with connect(f"{url}/v1/sessions/s", proxy=None) as socket:
            await socket.send('{"type":"hello"}')
            await _until(socket, "welcome")
            process.send_signal(signal.SIGTERM)
            assert (await _until(socket, "goaway"))["reason"] == "draining"
        assert await asyncio.to_thread(process.wait, PATIENCE_SECONDS) == 0


async def test_a_second_signal_ends_at_once() -> None:
    """A person who presses Ctrl-C twice does not wait for runs; the store is left whole."""
    with _serving("--store", "sqlite:///s.db", "--drain-ms", "600000") as (process, url):
        async with connect(f"{url}/v1/sessions/s", proxy=None) as socket:
            await socket.send('{"type":"hello"}')
            await socket.send('{"type":"send","id":"r","text":"count to 10000"}')
            await _until(socket, "run.chunk")
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(20):
                code = "busy"
                while code == "busy":
                    await socket.send('{"type":"send","id":"r2","text":"more","whenBusy":"reject"}')
                    code = str((await _until(socket, "error"))["code"])
            assert code == "draining"
            process.send_signal(signal.SIGINT)
            exit_code, output = await asyncio.to_thread(_ends, process)
            assert exit_code == 0, output
            assert "Draining: 1 run may finish within 600 s; again ends it now" in output
    with sqlite3.connect("s.db") as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    database.close()


def test_what_is_taken_is_said() -> None:
    """A port or a store that another server has ends with one sentence and exit code 1."""
    with _serving("--store", "sqlite:///s.db") as (process, url):
        port = url.rpartition(":")[2]
        taken_port = CliRunner().invoke(serve, ["--port", port, "--store", "memory:"])
        assert (taken_port.exit_code, taken_port.output.count("\n")) == (1, 1)
        assert f"port {port} is in use" in taken_port.output
        taken_store = CliRunner().invoke(serve, ["--port", "0", "--store", "sqlite:///s.db"])
        assert taken_store.exit_code == 1
        assert f"in use by another Holdfast server (process {process.pid})" in taken_store.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch:server"], "no module 'nosuch'"),
        (["nosuch"], "write module:attribute"),
        (["json:dumps"], "is no holdfast.server.Server"),
        (["--agent", "nope", "--store", "memory:"], "no agent 'nope'; there are: demo"),
        (["--host", "0.0.0.0", "--store", "memory:"], "HOLDFAST_TOKENS"),
        (["--store", "carrier:pigeon"], "the scheme is unknown"),
        (["--port", "70000"], "port (from --port)"),
        (["--config", "none.toml"], "none.toml cannot be read"),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments: list[str], said: str) -> None:
    """What cannot be served ends with exit code 2 and a sentence that says what to do."""
    result = CliRunner().invoke(serve, arguments)
    assert (result.exit_code, said in result.output) == (2, True)
    assert "Traceback" not in result.output


@pytest.mark.parametrize("program", ["./dev", None])
def test_it_says_what_works_here(monkeypatch: pytest.MonkeyPatch, program: str | None) -> None:
    """The hints name the program that started it, which is not always `holdfast`."""
    if program:
        monkeypatch.setenv("HOLDFAST_PROGRAM", program)
    with _serving("--store", "memory:", program=program or "holdfast"):
        pass
    Path("wrong.toml").write_text("prot = 1")
    wrong = CliRunner().invoke(serve, ["--config", "wrong.toml"])
    assert f"`{program or 'holdfast'} config`" in wrong.output


def test_the_shell_may_make_a_file_of_it() -> None:
    """`holdfast config > holdfast.toml` is a file that `serve` and `config` take."""
    first = CliRunner().invoke(config, ["--port", "9"])
    Path("holdfast.toml").write_text(first.output)
    again = CliRunner().invoke(config, [])
    assert (again.exit_code, "port = 9  # holdfast.toml" in again.output) == (0, True)


@pytest.mark.parametrize("command", [config, serve])
def test_a_mistyped_variable_is_told_on_standard_error(command: click.Command) -> None:
    """It is a warning, beside what is printed and not in it."""
    result = CliRunner(env={"HOLDFAST_STROE": "memory:"}).invoke(command, ["--agent", "nope"])
    assert "Warning: HOLDFAST_STROE is no setting, and is ignored; did you mean HOLDFAST_STORE?\n" in result.stderr
    assert "STROE" not in result.stdout


def test_help_names_the_variables() -> None:
    """Whoever asks for help learns the environment variable and the default of every option."""
    said = " ".join(CliRunner().invoke(serve, ["--help"]).output.split())
    assert "[env var: HOLDFAST_LOG_LEVEL; default: info]" in said
    for option in serve.params:
        if option.name not in ("app", "file", "help"):
            assert option.name is not None
            variable = f"HOLDFAST_{option.name.upper()}"
            assert variable in said
            assert option.name in Config.model_fields


def test_config_prints_what_is_in_effect() -> None:
    """The settings, their sources, and no secret."""
    result = CliRunner(env={"HOLDFAST_TOKENS": "ana:topsecret"}).invoke(config, ["--port", "9"])
    assert result.exit_code == 0
    assert "port = 9  # --port" in result.output
    assert "topsecret" not in result.output
    assert CliRunner(env={"HOLDFAST_PORT": "x"}).invoke(config, []).exit_code == 2


MODULE = """
from holdfast.server import SessionSettings
from holdfast.server.server import Server

server = Server(settings=SessionSettings(grace_ms=1, history_messages=3))
empty = Server()

@server.agent("mine")
async def mine(run):
    yield "mine"
"""


def test_a_server_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in the current directory is found; what is set from outside goes before what the code says."""
    Path("own_app_for_test.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("HOLDFAST_REPLAY_WINDOW_MS", "5")
    monkeypatch.setenv("HOLDFAST_TOKENS", "ana:x")
    try:
        server = own_server("own_app_for_test:server", load({}))
        assert list(server.agents) == ["mine"]
        settings = server.settings
        assert (settings.grace_ms, settings.replay_window_ms, settings.history_messages) == (1, 5, 3)
        assert server.authenticator is not None
        with pytest.raises(ConfigError, match="has no agent"):
            own_server("own_app_for_test:empty", load({}))
        with pytest.raises(ConfigError, match=r"demo_words_per_second \(from --demo-words-per-second\)"):
            own_server("own_app_for_test:server", load({"demo_words_per_second": 3.0}))
        Path("holdfast.toml").write_text("\n".join(load({}).lines()))
        assert own_server("own_app_for_test:server", load({})) is server
        for setting in ("openai_model", "openai_api_key", "openai_base_url"):
            Path("holdfast.toml").write_text(f'{setting} = "m"')
            with pytest.raises(ConfigError, match=rf"{setting} \(from holdfast\.toml\)"):
                own_server("own_app_for_test:server", load({}))
    finally:
        sys.modules.pop("own_app_for_test", None)


OPENAI_MODULE = """
from holdfast.server import Server
from holdfast.server.agents.openai import openai_agent

agent = openai_agent()
server = Server()
server.add_agent("mine", agent)
"""


def test_an_openai_agent_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """`openai_agent` in a module of one's own reads its model and API from the environment, and is served."""
    Path("own_openai_for_test.py").write_text(OPENAI_MODULE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("HOLDFAST_OPENAI_MODEL", "m")
    monkeypatch.setenv("HOLDFAST_OPENAI_API", "responses")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    try:
        assert list(own_server("own_openai_for_test:server", load({})).agents) == ["mine"]
        agent = sys.modules["own_openai_for_test"].agent
        assert (agent.model, agent.api) == ("m", "responses")
    finally:
        sys.modules.pop("own_openai_for_test", None)


def test_a_module_that_misses_another_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is there but fails to import something is not reported as missing itself."""
    Path("needy_app_for_test.py").write_text("import not_installed_for_test\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ModuleNotFoundError, match="not_installed_for_test"):
        own_server("needy_app_for_test:server", load({}))


async def test_the_openai_agent_comes_first_when_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key or an address brings the openai agent, as the default; without either there is only the demo agent."""
    assert list(shipped_server(load({}).config, None).agents) == ["demo"]
    assert openai_client(load({}).config) is None
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(ConfigError, match="HOLDFAST_OPENAI_MODEL"):
        openai_client(load({}).config)
    assert openai_client(load({"agent": "demo"}).config) is None
    monkeypatch.setenv("HOLDFAST_OPENAI_MODEL", "m")
    loaded = load({})
    client = openai_client(loaded.config)
    assert client is not None
    assert str(client.base_url) == "http://127.0.0.1:9/v1/"
    assert list(shipped_server(loaded.config, client).agents) == ["openai", "demo"]
    await client.close()
